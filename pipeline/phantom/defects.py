"""Defective files among the good ones, and what an ingest must say of each.

Belongs here: making each kind of defect, its expected reason. Not here: good images, the reading of files.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MediaStorageDirectoryStorage,
)

from pipeline.phantom.dicom import Encoding, common_tags, fixed_uid, with_file_meta, write
from pipeline.phantom.studies import ImagePlan


@dataclass(frozen=True)
class Rejection:
    """A file of the archive, or one frame of it, that must be rejected, and the reason code.

    `path` is relative to the archive; that of a zip's member goes through its zip as through a folder.
    """

    path: str
    level: str
    reason: str
    frame: int | None = None


Defect = Callable[[Path, ImagePlan, str], list[Rejection]]
"""Puts a defect into the archive: its folder, a good image to start from, a name for new files."""


def add_defects(archive: Path, plans: tuple[ImagePlan, ...], seed: int) -> list[Rejection]:
    """Add one or two files of each kind of defect to `archive`, which holds the images of `plans`.

    Returns what must be rejected, sorted by path. Every defect starts from another good image.
    """
    rng = np.random.default_rng([seed, 8])
    native = [plan for plan in plans if plan.encoding is Encoding.EXPLICIT and plan.frames == 1]
    chosen = [native[int(i)] for i in rng.permutation(len(native))[: len(DEFECTS)]]
    found: list[Rejection] = []
    for number, (defect, plan) in enumerate(zip(DEFECTS, chosen, strict=True)):
        found += defect(archive, plan, f"IM{900 + number}")
    return sorted(found, key=lambda rejection: rejection.path)


def _sibling(plan: ImagePlan, name: str) -> str:
    """A path for a new file beside a plan's image."""
    return str(Path(plan.path).with_name(name))


def _renamed(archive: Path, plan: ImagePlan, name: str) -> Dataset:
    """A good image's data set under a SOP instance UID of its own."""
    dataset = dcmread(archive / plan.path)
    dataset.SOPInstanceUID = UID(fixed_uid(plan.header.instance_uid, name))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _truncated_header(archive: Path, plan: ImagePlan, name: str) -> list[Rejection]:
    """A file cut off within its meta information."""
    path = _sibling(plan, name)
    (archive / path).write_bytes((archive / plan.path).read_bytes()[:150])
    return [Rejection(path, "file", "unreadable_header")]


def _truncated_pixels(archive: Path, plan: ImagePlan, name: str) -> list[Rejection]:
    """An image that lacks the lower two fifths of its pixels."""
    path, dataset = _sibling(plan, name), _renamed(archive, plan, name)
    write(dataset, archive / path)
    whole = (archive / path).read_bytes()
    (archive / path).write_bytes(whole[: len(whole) - 2 * len(dataset.PixelData) // 5])
    return [Rejection(path, "file", "incomplete")]


def _broken_jpeg(archive: Path, plan: ImagePlan, name: str) -> list[Rejection]:
    """An image whose JPEG stream is noise."""
    path, dataset = _sibling(plan, name), _renamed(archive, plan, name)
    dataset.PixelData = encapsulate([bytes(range(256)) * 8])
    dataset["PixelData"].is_undefined_length = True
    dataset.LossyImageCompression, dataset.LossyImageCompressionMethod = "01", "ISO_10918_1"
    with_file_meta(dataset, JPEGBaseline8Bit)
    write(dataset, archive / path)
    return [Rejection(path, "frame", "undecodable", 0)]


def _colour_doppler(archive: Path, plan: ImagePlan, name: str) -> list[Rejection]:
    """A still of colour Doppler: flow towards the probe in red, away from it in blue, within the tissue."""
    path, dataset = _sibling(plan, name), _renamed(archive, plan, name)
    rgb_HWC = np.repeat(dataset.pixel_array[..., None], 3, axis=-1)
    height, width = rgb_HWC.shape[:2]
    rows, columns = np.ogrid[:height, :width]
    for side, keep in ((0.42, 0), (0.58, 2)):
        vessel = ((rows - 0.5 * height) / (0.05 * height)) ** 2 + ((columns - side * width) / (0.06 * width)) ** 2 < 1
        rgb_HWC[vessel] = np.where(np.arange(3) == keep, 220, 20)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = rgb_HWC.tobytes()
    write(dataset, archive / path)
    return [Rejection(path, "frame", "not_b_mode", 0)]


def _zipped(archive: Path, plan: ImagePlan, name: str) -> list[Rejection]:
    """An export that was left zipped: the two images in it are as good as any, the note beside them is none."""
    path = f"export/{name}.ZIP"
    (archive / path).parent.mkdir(exist_ok=True)
    with ZipFile(archive / path, "w") as zipped:
        for number in range(2):
            content = BytesIO()
            _renamed(archive, plan, f"{name}{number}").save_as(content, enforce_file_format=True)
            zipped.writestr(ZipInfo(f"IM{number}"), content.getvalue(), ZIP_DEFLATED)
        zipped.writestr(ZipInfo("NOTE.TXT"), "Zipped by the phantom clinic.")
    return [Rejection(f"{path}/NOTE.TXT", "file", "not_dicom")]


def _text(archive: Path, plan: ImagePlan, name: str) -> list[Rejection]:
    """A note somebody left in the folder."""
    path = _sibling(plan, "README.TXT")
    (archive / path).write_text("Export of the phantom clinic. No patient in it exists.\n", encoding="ascii")
    return [Rejection(path, "file", "not_dicom")]


def _computed_tomography(archive: Path, plan: ImagePlan, name: str) -> list[Rejection]:
    """A slice of computed tomography."""
    path, dataset = _sibling(plan, name), _other_object(plan, name, "CT")
    dataset.SOPClassUID = CTImageStorage
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows = dataset.Columns = 64
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.KVP = "-1024", "1", "120"
    dataset.AcquisitionNumber, dataset.FrameOfReferenceUID = 1, fixed_uid(plan.header.study.uid, "frame")
    dataset.PositionReferenceIndicator = dataset.Laterality = ""
    dataset.PatientPosition = "HFS"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [5, 5], "5"
    dataset.PixelData = np.full((64, 64), 1024, "<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    with_file_meta(dataset, ExplicitVRLittleEndian)
    write(dataset, archive / path)
    return [Rejection(path, "file", "not_ultrasound")]


def _report(archive: Path, plan: ImagePlan, name: str) -> list[Rejection]:
    """A structured report: a valid object without pixels."""
    path, dataset = _sibling(plan, name), _other_object(plan, name, "SR")
    dataset.SOPClassUID = BasicTextSRStorage
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.CompletionFlag, dataset.VerificationFlag = "PARTIAL", "UNVERIFIED"
    dataset.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging report")]
    dataset.ReferencedPerformedProcedureStepSequence = dataset.PerformedProcedureCodeSequence = []
    with_file_meta(dataset, ExplicitVRLittleEndian)
    write(dataset, archive / path)
    return [Rejection(path, "file", "not_an_image")]


def _directory(archive: Path, plan: ImagePlan, name: str) -> list[Rejection]:
    """An empty DICOMDIR, as exports to a disc leave one."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MediaStorageDirectoryStorage, fixed_uid(plan.path, name)
    dataset.FileSetID = "PHANTOM"
    dataset.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    dataset.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    dataset.FileSetConsistencyFlag = 0
    dataset.DirectoryRecordSequence = []
    with_file_meta(dataset, ExplicitVRLittleEndian)
    del dataset.SOPClassUID, dataset.SOPInstanceUID
    write(dataset, archive / "DICOMDIR")
    return [Rejection("DICOMDIR", "file", "not_an_image")]


def _duplicate(archive: Path, plan: ImagePlan, name: str) -> list[Rejection]:
    """A second export of an image; of the two, the one whose path sorts later is the repeat."""
    path = f"copy/{name}"
    (archive / path).parent.mkdir(exist_ok=True)
    (archive / path).write_bytes((archive / plan.path).read_bytes())
    return [Rejection(path, "file", "duplicate")]


def _conflict(archive: Path, plan: ImagePlan, name: str) -> list[Rejection]:
    """Two files with the same SOP instance UID and different pixels: neither can be trusted."""
    paths = [_sibling(plan, name), _sibling(plan, f"{name}B")]
    dataset = _renamed(archive, plan, name)
    write(dataset, archive / paths[0])
    dataset.PixelData = np.flip(np.frombuffer(dataset.PixelData, np.uint8)).tobytes()
    write(dataset, archive / paths[1])
    return [Rejection(path, "file", "conflicting_duplicate") for path in paths]


def _other_object(plan: ImagePlan, name: str, modality: str) -> Dataset:
    """The tags of another modality's object, in a series of its own of the same study."""
    uids = fixed_uid(plan.header.study.uid, modality, name), fixed_uid(plan.header.study.series_uid, modality)
    study = replace(plan.header.study, series_uid=uids[1])
    dataset = common_tags(replace(plan.header, instance_uid=uids[0], study=study))
    dataset.Modality, dataset.Manufacturer = modality, "Phantom Imaging"
    dataset.ContentDate, dataset.ContentTime = study.date, study.time
    return dataset


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


DEFECTS: tuple[Defect, ...] = (
    _truncated_header,
    _truncated_header,
    _truncated_pixels,
    _truncated_pixels,
    _broken_jpeg,
    _colour_doppler,
    _zipped,
    _text,
    _computed_tomography,
    _report,
    _directory,
    _duplicate,
    _duplicate,
    _conflict,
)
