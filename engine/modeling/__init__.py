"""The detector and its parts. Modules take plain arguments; `build.py` alone reads the configuration."""
