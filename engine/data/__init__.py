"""From files on disk to batches: catalog, annotation formats, data sets, image reader, transforms, samplers, loader."""
