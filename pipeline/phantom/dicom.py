"""Make ultrasound instances in several transfer syntaxes, with the same bytes for the same input."""

import io
import uuid
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from pipeline.phantom.anatomy import Bytes
from pipeline.phantom.scanner import Scanner, View

_ROOT = uuid.UUID("6f6e6f74-6167-5070-8a6e-746f6d000001")
FRAME_MILLISECONDS = 50


class Encoding(StrEnum):
    """Storage of an instance's pixels: grey in four transfer syntaxes, or colour (Explicit VR)."""

    EXPLICIT = "explicit"
    IMPLICIT = "implicit"
    RLE = "rle"
    JPEG = "jpeg"
    RGB = "rgb"
    PALETTE = "palette"


_SYNTAXES = {
    Encoding.IMPLICIT: ImplicitVRLittleEndian,
    Encoding.RLE: RLELossless,
    Encoding.JPEG: JPEGBaseline8Bit,
}
_PHOTOMETRICS = {Encoding.RGB: "RGB", Encoding.PALETTE: "PALETTE COLOR"}


def transfer_syntax(encoding: Encoding) -> UID:
    """TransferSyntaxUID of an instance with that encoding."""
    return _SYNTAXES.get(encoding, ExplicitVRLittleEndian)


def photometric(encoding: Encoding) -> str:
    """PhotometricInterpretation of an instance with that encoding."""
    return _PHOTOMETRICS.get(encoding, "MONOCHROME2")


def sop_class(frames: int) -> UID:
    """SOPClassUID of an instance with that number of frames (DICOM PS3.3 A.6, A.7)."""
    return UltrasoundMultiFrameImageStorage if frames > 1 else UltrasoundImageStorage


@dataclass(frozen=True)
class Person:
    """A fictional patient."""

    patient: str
    sex: str
    birth_year: int


@dataclass(frozen=True)
class Study:
    """A study with its one series; `description` may be absent."""

    uid: str
    series_uid: str
    date: str
    time: str
    description: str | None


@dataclass(frozen=True)
class Header:
    """The tags of an instance; `transducer_type` and `transducer_data` may be absent."""

    person: Person
    study: Study
    instance_uid: str
    number: int
    transducer_type: str | None
    transducer_data: tuple[str, ...] | None
    regions: bool


def fixed_uid(*parts: str | int) -> str:
    """A UID under 2.25 (DICOM PS3.5 B.2) that depends on `parts` alone."""
    return f"2.25.{uuid.uuid5(_ROOT, '/'.join(map(str, parts))).int}"


def instance(header: Header, frames: list[View], scanner: Scanner, encoding: Encoding) -> Dataset:
    """A US Image, or with several frames a US Multi-frame Image (DICOM PS3.3 A.6, A.7)."""
    dataset = _tags(header, scanner)
    dataset.SOPClassUID = sop_class(len(frames))
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
        dataset.FrameTime = str(FRAME_MILLISECONDS)
        dataset.FrameIncrementPointer = Tag("FrameTime")
    if header.regions:
        dataset.SequenceOfUltrasoundRegions = [_region(frames[0])]
    # RLE: pydicom compresses native pixels later.
    with_file_meta(dataset, ExplicitVRLittleEndian if encoding is Encoding.RLE else transfer_syntax(encoding))
    _put_pixels(dataset, np.stack([frame.grey for frame in frames]), encoding)
    return dataset


def with_file_meta(dataset: Dataset, syntax: UID) -> None:
    """Give the data set its file meta information (DICOM PS3.10 7.1), independent of the writing library."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = UID(fixed_uid("implementation"))
    meta.ImplementationVersionName = "SONOTAG_PHANTOM"
    dataset.file_meta = meta


def write(dataset: Dataset, path: Path) -> None:
    """Write the data set as a DICOM file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def common_tags(header: Header) -> Dataset:
    """The patient, study, series and instance tags of every kind of object."""
    person, study, dataset = header.person, header.study, Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = f"PHANTOM^{person.patient}"
    dataset.PatientID = person.patient
    dataset.PatientBirthDate = f"{person.birth_year}0101"
    dataset.PatientSex = person.sex
    dataset.StudyInstanceUID = study.uid
    dataset.StudyDate = study.date
    dataset.StudyTime = study.time
    dataset.StudyID = "1"
    dataset.AccessionNumber = f"A{study.uid[-8:]}"
    dataset.ReferringPhysicianName = ""
    if study.description is not None:
        dataset.StudyDescription = study.description
    dataset.SeriesInstanceUID = study.series_uid
    dataset.SeriesNumber = 1
    dataset.SOPInstanceUID = header.instance_uid
    dataset.InstanceNumber = header.number
    return dataset


def _tags(header: Header, scanner: Scanner) -> Dataset:
    dataset = common_tags(header)
    dataset.Modality = "US"
    dataset.Manufacturer = scanner.manufacturer
    dataset.ManufacturerModelName = scanner.model
    dataset.SoftwareVersions = "1"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.ContentDate = header.study.date
    dataset.ContentTime = header.study.time
    dataset.PatientOrientation = ""
    dataset.Laterality = ""
    if header.transducer_type is not None:
        dataset.TransducerType = header.transducer_type
    if header.transducer_data is not None:
        dataset.TransducerData = list(header.transducer_data)
    return dataset


def _region(view: View) -> Dataset:
    """The tissue region and its calibration (DICOM PS3.3 C.8.5.5); centimetres per pixel, depth downwards."""
    top, left, height, width = view.box
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = left, top
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = left + width - 1, top + height - 1
    region.ReferencePixelX0, region.ReferencePixelY0 = view.origin[1] - left, view.origin[0] - top
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.ReferencePixelPhysicalValueX = region.ReferencePixelPhysicalValueY = 0.0
    region.PhysicalDeltaX = region.PhysicalDeltaY = round(view.pixel_mm / 10, 6)
    return region


def _put_pixels(dataset: Dataset, frames_FHW: Bytes, encoding: Encoding) -> None:
    dataset.Rows, dataset.Columns = frames_FHW.shape[1:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric(encoding)
    dataset.LossyImageCompression = "00"
    if encoding is Encoding.JPEG:
        _put_jpeg(dataset, frames_FHW)
        return
    if encoding is Encoding.RGB:
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
        frames_FHW = np.repeat(frames_FHW[..., None], 3, axis=-1)
    if encoding is Encoding.PALETTE:
        _put_palette(dataset)
    dataset.PixelData = frames_FHW.tobytes()
    dataset["PixelData"].VR = "OB"
    if encoding is Encoding.RLE:
        dataset.compress(RLELossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)


def _put_jpeg(dataset: Dataset, frames_FHW: Bytes) -> None:
    streams = []
    for frame in frames_FHW:
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, "JPEG", quality=92)
        streams.append(stream.getvalue())
    dataset.PixelData = encapsulate(streams)
    dataset["PixelData"].VR = "OB"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = round(frames_FHW.size / sum(map(len, streams)), 2)
    dataset.LossyImageCompressionMethod = "ISO_10918_1"


def _put_palette(dataset: Dataset) -> None:
    """A palette of 256 greys with 16 bits each."""
    greys = (np.arange(256, dtype="<u2") * 257).tobytes()
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", greys)
