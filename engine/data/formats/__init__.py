"""Formats of annotation files, one module each, which registers its reader in `engine.data.annotations.FORMATS`."""
