"""Data: from files on disk to batches; catalog, COCO data sets, image reader, transforms, samplers, loaders."""
