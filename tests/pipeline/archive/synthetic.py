"""Small DICOM files made with pydicom.

Belongs here: what several tests write to an archive folder. Not here: expectations.
"""

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

from pipeline.archive.frame_reader import DecodedFile, FrameReader, FrameRequest, Outcome
from pipeline.archive.scan import Index, index_archive
from pipeline.archive.source import ArchiveFile
from pipeline.dicom.grey import Grey
from pipeline.dicom.pixel_file import PixelFile
from pipeline.recipe.archive import Archive

KEY = b"a key for tests only"


def index_folder(archive: Path | str, private: Path, key: bytes = KEY, patients: int = 1) -> Index:
    """The index of the folder `archive`; descriptions that `patients` patients share are published."""
    return index_archive(str(archive), private, key, Archive(description_patients=patients))


def decode_grey(path: Path, frame: int) -> Grey:
    """Frame number `frame`, from 0, of the file at `path`."""
    with path.open("rb") as file:
        return PixelFile.open(file).frame(frame).grey


def read_frames(
    path: Path, frames: tuple[int, ...], height: int, width: int, b_mode_only: bool = True
) -> list[Outcome]:
    """What the reader makes of the file's `frames`, as images of `height` x `width` pixels."""
    file = ArchiveFile(path.name, path.stat().st_size, str(path.stat().st_mtime_ns))
    found = FrameReader(str(path.parent), ("US", "CT"), height, width, b_mode_only)(FrameRequest(file, frames))
    assert isinstance(found, DecodedFile), found
    return found.outcomes


def noise(height: int = 12, width: int = 16, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Grey noise, height x width."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def dataset(pixels: npt.NDArray[Any], **fields: Any) -> Dataset:
    """An ultrasound image; `pixels` is height x width[ x 3], uint8 or uint16; a field given as None is left out.

    Each patient has a study of one series, unless the fields name others.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = fields.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    made = Dataset()
    made.file_meta = meta
    bits = pixels.dtype.itemsize * 8
    cine = pixels.ndim == 4 or (pixels.ndim == 3 and pixels.shape[-1] != 3)
    shape = pixels.shape[1:] if cine else pixels.shape
    patient = str(fields.get("PatientID") or "").strip() or "P1"
    study = "1.2.3.4" if patient == "P1" else f"1.2.3.{10 + crc32(patient.encode())}"
    colour = len(shape) == 3
    defaults = {
        "SOPClassUID": UltrasoundImageStorage,
        "SOPInstanceUID": generate_uid(),
        "Modality": "US",
        "PatientID": "P1",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{fields.get('StudyInstanceUID') or study}.5",
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "PlanarConfiguration": 0 if colour else None,
        "NumberOfFrames": len(pixels) if cine else None,
        "Rows": shape[0],
        "Columns": shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes() + bytes(pixels.nbytes % 2),
    }
    for name, value in (defaults | fields).items():
        if value is not None:
            setattr(made, name, value)
    meta.MediaStorageSOPClassUID = made.get("SOPClassUID", UltrasoundImageStorage)
    meta.MediaStorageSOPInstanceUID = made.get("SOPInstanceUID", "1.2.3.4.5.6")
    return made


def write_dicom(path: Path, pixels: npt.NDArray[Any] | None = None, **fields: Any) -> Path:
    """Write `dataset(pixels, **fields)` to `path` and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset(noise() if pixels is None else pixels, **fields).save_as(path, enforce_file_format=True)
    return path
