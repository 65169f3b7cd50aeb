"""Keys of a run as a whole."""

from __future__ import annotations

from pathlib import Path

from engine.config.declaration import key

# One key after another as in a table, so that a search for a key shows its default too.
# fmt: off
KEYS = [
    key("OUTPUT_DIR", ".", "Folder of everything a run writes.", type=Path),
    key("IMPORTS", (), "Python modules to import before anything is built: your own backbones, heads and losses "
        "register themselves there.", ours=True, type=tuple[str, ...]),
    key("SEED", -1, "Seed of weights, sampling and augmentation, below 2^32 (NumPy's limit); -1 draws one and logs it.",
        ours=True, between=(-1, 2**32 - 1)),
    key("DETERMINISTIC", False, "Use only operators that give the same bits each time; slower on a GPU.", ours=True),
]
# fmt: on
