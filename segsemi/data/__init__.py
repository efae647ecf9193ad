"""Data sets, the manifest, splits and training batches."""
