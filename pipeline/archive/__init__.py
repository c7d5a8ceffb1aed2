"""DICOM on disk to rows: scan, headers, pixels, pseudonyms, quarantine."""
