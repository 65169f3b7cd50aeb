"""Dense stages: one prediction for each anchor of a pyramid."""
