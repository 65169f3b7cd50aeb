"""Region proposals and the stages that refine them."""
