"""Tensor operations and layers. Variants are looked up by name in the registries of each file."""
