"""The detector and its parts, which take plain arguments; `engine.assembly` puts them together."""
