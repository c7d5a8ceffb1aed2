"""The image cache and batches: Parquet in, tensors out."""
