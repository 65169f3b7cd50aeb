"""A trained model as a file for other runtimes: one graph from pixels to detections, and its writers."""
