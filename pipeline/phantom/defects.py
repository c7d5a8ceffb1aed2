"""Add defective files to the archive, each with the reason that an ingest must give."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
    RLELossless,
)

from pipeline.errors import UserError
from pipeline.phantom.dicom import Encoding, common_tags, fixed_uid, with_file_meta, write
from pipeline.phantom.ground_truth import Record, Rejection, record_of
from pipeline.phantom.settings import Defects
from pipeline.phantom.studies import ImagePlan
from pipeline.phantom.tag_noise import hits


@dataclass(frozen=True)
class DefectResult:
    """The effect of a defect: the expected rejections, and records in addition to those of the good images."""

    rejections: tuple[Rejection, ...]
    records: tuple[Record, ...] = ()


Defect = Callable[[Path, ImagePlan, str], DefectResult]
"""Adds a defect to the archive; takes its folder, a good image to start from, and a name for new files."""


def add_defects(
    archive: Path, plans: tuple[ImagePlan, ...], rates: Defects, seed: int
) -> tuple[list[Record], list[Rejection]]:
    """Add defective files to `archive`, which has the images of `plans`, and move some of those to zip files.

    Returns all records and rejections that an ingest must find, sorted by path. Raises `UserError` if no image is
    suitable as a source of defects.
    """
    rng = np.random.default_rng([seed, 8])
    order = [plans[int(i)] for i in rng.permutation(len(plans))]
    results, copied = _defective(archive, order, rates)
    results += _zip_some(archive, [plan for plan in order if plan.path not in copied], hits(rates.zipped, len(plans)))
    records = {plan.header.instance_uid: record_of(plan) for plan in plans}
    records |= {record.sop_instance_uid: record for one in results for record in one.records}
    rejections = [rejection for one in results for rejection in one.rejections]
    return sorted(records.values(), key=lambda record: record.path), sorted(rejections, key=lambda one: one.path)


def _defective(archive: Path, order: list[ImagePlan], rates: Defects) -> tuple[list[DefectResult], set[str]]:
    """The defects of all kinds but zips, and the paths of the images that have a copy and must not be moved.

    Each starts from a different good image as long as there are any.
    """
    native = [plan for plan in order if plan.encoding is Encoding.EXPLICIT and plan.frames == 1]
    kinds = [defect for name, defect in DEFECTS.items() for _ in range(hits(getattr(rates, name), len(order)))]
    if kinds and not native:
        raise UserError(f"The phantom's {len(order)} images are too few for its defects: choose more.")
    chosen = [native[number % len(native)] for number in range(len(kinds))]
    results = [
        defect(archive, plan, f"IM9{number:04d}")
        for number, (defect, plan) in enumerate(zip(kinds, chosen, strict=True))
    ]
    return results, {plan.path for defect, plan in zip(kinds, chosen, strict=True) if defect is _duplicate}


def _zip_some(archive: Path, plans: list[ImagePlan], images: int) -> Iterator[DefectResult]:
    """About `images` of `plans` in zip files of two."""
    for number, first in enumerate(range(0, min(images, len(plans) - 1), 2)):
        yield _zip_images(archive, plans[first : first + 2], f"export/EXPORT{number:04d}.ZIP")


def _sibling(plan: ImagePlan, name: str) -> str:
    """A path for a new file beside a plan's image."""
    return str(Path(plan.path).with_name(name))


def _copy_with_new_uid(archive: Path, plan: ImagePlan, name: str) -> Dataset:
    """A good image's data set under a SOP instance UID of its own."""
    dataset = dcmread(archive / plan.path)
    dataset.SOPInstanceUID = UID(fixed_uid(plan.header.instance_uid, name))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _truncated_header(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
    """A file cut off within its meta information."""
    path = _sibling(plan, name)
    (archive / path).write_bytes((archive / plan.path).read_bytes()[:150])
    return DefectResult((Rejection(path, "file", "unreadable_header"),))


def _truncated_pixels(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
    """An image that lacks the lower two fifths of its pixels."""
    path, dataset = _sibling(plan, name), _copy_with_new_uid(archive, plan, name)
    write(dataset, archive / path)
    whole = (archive / path).read_bytes()
    (archive / path).write_bytes(whole[: len(whole) - 2 * len(dataset.PixelData) // 5])
    return DefectResult((Rejection(path, "file", "incomplete"),))


def _broken_jpeg(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
    """An image whose JPEG stream is noise."""
    path, dataset = _sibling(plan, name), _copy_with_new_uid(archive, plan, name)
    dataset.PixelData = encapsulate([bytes(range(256)) * 8])
    dataset["PixelData"].is_undefined_length = True
    dataset.LossyImageCompression, dataset.LossyImageCompressionMethod = "01", "ISO_10918_1"
    with_file_meta(dataset, JPEGBaseline8Bit)
    write(dataset, archive / path)
    return _with_bad_frame(dataset, plan, path, "undecodable")


def _wrong_meta(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
    """An image with native pixels whose meta information states RLE."""
    path, dataset = _sibling(plan, name), _copy_with_new_uid(archive, plan, name)
    write(dataset, archive / path)
    written = (archive / path).read_bytes()  # pydicom itself would not write such a file
    (archive / path).write_bytes(written.replace(ExplicitVRLittleEndian.encode(), RLELossless.encode(), 1))
    dataset.file_meta.TransferSyntaxUID = RLELossless
    return _with_bad_frame(dataset, plan, path, "undecodable")


def _lying_dimensions(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
    """An image whose header states three times its rows."""
    path, dataset = _sibling(plan, name), _copy_with_new_uid(archive, plan, name)
    dataset.Rows *= 3
    write(dataset, archive / path)
    return DefectResult((Rejection(path, "file", "incomplete"),))


def _enormous_dimensions(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
    """A compressed image whose header states half a gigabyte of pixels."""
    path, dataset = _sibling(plan, name), _copy_with_new_uid(archive, plan, name)
    dataset.compress(RLELossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    dataset.Rows = dataset.Columns = 24_000
    write(dataset, archive / path)
    return _with_bad_frame(dataset, plan, path, "unsupported_pixels")


def _with_bad_frame(dataset: Dataset, plan: ImagePlan, path: str, reason: str) -> DefectResult:
    """A record whose one frame must be rejected; its header is `dataset`'s."""
    record = replace(
        record_of(plan),
        path=path,
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        photometric=dataset.PhotometricInterpretation,
        rows=dataset.Rows,
        columns=dataset.Columns,
    )
    return DefectResult((Rejection(path, "frame", reason, 0),), (record,))


def _colour_doppler(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
    """A still of colour Doppler: flow towards the probe in red, away from it in blue, within the tissue."""
    path, dataset = _sibling(plan, name), _copy_with_new_uid(archive, plan, name)
    rgb_HWC = np.repeat(dataset.pixel_array[..., None], 3, axis=-1)
    height, width = rgb_HWC.shape[:2]
    rows, columns = np.ogrid[:height, :width]
    for side, keep in ((0.42, 0), (0.58, 2)):
        vessel = ((rows - 0.5 * height) / (0.05 * height)) ** 2 + ((columns - side * width) / (0.06 * width)) ** 2 < 1
        rgb_HWC[vessel] = np.where(np.arange(3) == keep, 220, 20)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = rgb_HWC.tobytes()
    write(dataset, archive / path)
    return _with_bad_frame(dataset, plan, path, "not_b_mode")


def _zip_images(archive: Path, plans: list[ImagePlan], path: str) -> DefectResult:
    """A zipped export: two images that exist nowhere else, and a note."""
    (archive / path).parent.mkdir(exist_ok=True)
    with ZipFile(archive / path, "w") as zipped:
        for number, plan in enumerate(plans):
            zipped.writestr(ZipInfo(f"IM{number}"), (archive / plan.path).read_bytes(), ZIP_DEFLATED)
            (archive / plan.path).unlink()
        zipped.writestr(ZipInfo("NOTE.TXT"), "Zipped by the phantom clinic.")
    moved = [replace(record_of(plan), path=f"{path}/IM{number}") for number, plan in enumerate(plans)]
    return DefectResult((Rejection(f"{path}/NOTE.TXT", "file", "not_dicom"),), tuple(moved))


def _note(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
    """A text file in the folder."""
    path = _sibling(plan, f"{name}.TXT")
    (archive / path).write_text("Export of the phantom clinic. No patient in it exists.\n", encoding="ascii")
    return DefectResult((Rejection(path, "file", "not_dicom"),))


def _computed_tomography(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
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
    return DefectResult((Rejection(path, "file", "not_ultrasound"),))


def _report(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
    """A structured report: a valid object without pixels."""
    path, dataset = _sibling(plan, name), _other_object(plan, name, "SR")
    dataset.SOPClassUID = BasicTextSRStorage
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.CompletionFlag, dataset.VerificationFlag = "PARTIAL", "UNVERIFIED"
    dataset.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging report")]
    dataset.ReferencedPerformedProcedureStepSequence = dataset.PerformedProcedureCodeSequence = []
    with_file_meta(dataset, ExplicitVRLittleEndian)
    write(dataset, archive / path)
    return DefectResult((Rejection(path, "file", "not_an_image"),))


def _directory(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
    """An empty DICOMDIR, as of an export to a disc."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MediaStorageDirectoryStorage, fixed_uid(plan.path, name)
    dataset.FileSetID = "PHANTOM"
    dataset.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    dataset.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    dataset.FileSetConsistencyFlag = 0
    dataset.DirectoryRecordSequence = []
    with_file_meta(dataset, ExplicitVRLittleEndian)
    del dataset.SOPClassUID, dataset.SOPInstanceUID
    path = f"disc/{name}/DICOMDIR"
    write(dataset, archive / path)
    return DefectResult((Rejection(path, "file", "not_an_image"),))


def _duplicate(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
    """A second export of an image; the one whose path sorts later is the duplicate."""
    path = f"copy/{name}"
    (archive / path).parent.mkdir(exist_ok=True)
    (archive / path).write_bytes((archive / plan.path).read_bytes())
    return DefectResult((Rejection(path, "file", "duplicate"),))


def _conflict(archive: Path, plan: ImagePlan, name: str) -> DefectResult:
    """Two files with the same SOP instance UID and different pixels: neither can be trusted."""
    paths = [_sibling(plan, name), _sibling(plan, f"{name}B")]
    dataset = _copy_with_new_uid(archive, plan, name)
    write(dataset, archive / paths[0])
    dataset.PixelData = np.flip(np.frombuffer(dataset.PixelData, np.uint8)).tobytes()
    write(dataset, archive / paths[1])
    return DefectResult(tuple(Rejection(path, "file", "conflicting_duplicate") for path in paths))


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


DEFECTS: dict[str, Defect] = {
    "truncated_header": _truncated_header,
    "truncated_pixels": _truncated_pixels,
    "lying_dimensions": _lying_dimensions,
    "enormous_dimensions": _enormous_dimensions,
    "wrong_meta": _wrong_meta,
    "broken_jpeg": _broken_jpeg,
    "colour_doppler": _colour_doppler,
    "note": _note,
    "computed_tomography": _computed_tomography,
    "report": _report,
    "directory": _directory,
    "duplicate": _duplicate,
    "conflict": _conflict,
}
"""By the fields of their rates in `pipeline.phantom.settings.Defects`, but for `zipped`, which takes good images."""
