"""Necks by name: from the maps of a body to a pyramid."""
