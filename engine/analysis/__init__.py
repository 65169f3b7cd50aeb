"""Analyses of data sets (anchors, pictures), of models (complexity) and of finished runs (logs)."""
