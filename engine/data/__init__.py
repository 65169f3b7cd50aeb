"""From files on disk to batches: catalog, COCO data sets, reader, transforms, samplers, loaders."""
