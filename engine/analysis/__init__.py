"""What a data set, a model or a finished run is like: anchors, complexity, logs."""
