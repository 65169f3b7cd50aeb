"""How a two-stage detector is put together: its `build.py`; the parts stand in `engine.modeling`."""
