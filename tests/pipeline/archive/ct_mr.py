"""A small archive of CT and MR, made from the two slices that pydicom ships: other patients, tags and pixels.

Belongs here: the files, and by hand what a recipe that names their tags must make of them. Not here: comparing.
"""

from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from tests.pipeline.archive.synthetic import write_dicom

RECIPE = """
name: slices
archive: {modalities: [CT, MR]}
labels:
  sources:
    - kind: values
      field: BodyPartExamined
      labels:
        chest: [CHEST, CHESTABDOMEN]
        abdomen: [ABDOMEN, liver, CHESTABDOMEN]
    - kind: bins
      field: SliceThickness
      edges: [1.5, 2.5]
      labels: [thin, medium, thick]
images: {height: 32, width: 64}
pretraining:
  backbones: [resnet50]
  methods: [baseline]
  epochs: 1
  batch_size: 2
downstream: {arms: [baseline]}
"""
LABELS = ("chest", "abdomen", "thin", "medium", "thick")

# name: modality, BodyPartExamined, SliceThickness in mm; status and LABELS as a person reads them
FILES = {
    "ct 0": ("CT", "CHEST", "0.625", "labelled", (1, 0, 1, 0, 0)),
    "ct 1": ("CT", "ABDOMEN", "5.000", "labelled", (0, 1, 0, 0, 1)),
    "ct 2": ("CT", "CHESTABDOMEN", "2", "labelled", (1, 1, 0, 1, 0)),
    "ct 3": ("CT", "CHEST", "1.5", "labelled", (1, 0, 0, 1, 0)),
    "ct 4": ("CT", "CHEST", "2.50", "labelled", (1, 0, 0, 0, 1)),
    "ct 5": ("CT", "KNEE", "1", "unknown_body_part_examined", (None, None, 1, 0, 0)),
    "ct 6": ("CT", "CHEST", None, "unknown_slice_thickness", (1, 0, None, None, None)),
    "mr 7": ("MR", "LIVER", "0.8000", "labelled", (0, 1, 1, 0, 0)),
    "mr 8": ("MR", None, "0", "unknown_body_part_examined", (None, None, None, None, None)),
    "mr 9": ("MR", "ABDOMEN", "3", "labelled", (0, 1, 0, 0, 1)),
}


def write_archive(archive: Path) -> None:
    """Write FILES, each of a patient of its own, and an ultrasound image beside them."""
    archive.mkdir(parents=True)
    for number, (name, (modality, part, thickness, *_)) in enumerate(FILES.items()):
        slice_ = dcmread(get_testdata_file(f"{modality}_small.dcm"))
        slice_.PatientID, slice_.PatientName = f"SLICES-{number}", f"SENTINEL^{number}"
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = generate_uid(), generate_uid()
        slice_.BodyPartExamined, slice_.SliceThickness = part or "", thickness or ""
        slice_.PixelData = np.roll(slice_.pixel_array, 7 * number, axis=1).tobytes()
        slice_.save_as(archive / name)
    write_dicom(archive / "us", PatientID="SLICES-us")
