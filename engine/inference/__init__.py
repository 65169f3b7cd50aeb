"""Detecting: over a data set, or image by image."""
