"""Apply a fine-tuned model to new DICOM files."""
