"""A fine-tuned model applied to new DICOM files."""
