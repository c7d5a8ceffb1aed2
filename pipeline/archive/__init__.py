"""An archive of DICOM files to tables and the image cache: listing, worker processes, scan."""
