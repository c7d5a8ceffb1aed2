"""Read one DICOM file: its header, its pixels, the insonated area, and why a file or frame is rejected."""
