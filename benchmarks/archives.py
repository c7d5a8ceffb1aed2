"""Archives for the benchmarks, made from the phantom's images in the formats of clinical scanners."""

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless, generate_uid

HEIGHT, WIDTH = 600, 800
"""Size of the frames in `mixed_archive` and `cine_archive`, common in ultrasound."""

Pixels = npt.NDArray[np.uint8]


def copies(phantom: Path, folder: Path, count: int) -> list[Path]:
    """The paths of `count` valid files with the phantom's headers and pixels, each a separate instance."""
    originals = [(path.read_bytes(), uid.encode()) for path, uid in _instances(phantom) if _decodes(path)]
    paths = []
    for number in range(count):
        content, uid = originals[number % len(originals)]
        path = folder / f"{number // 100:04d}" / f"{number % 100:02d}.dcm"
        _write(path, content.replace(uid, _other_uid(uid, number)))
        paths.append(path)
    return paths


def tiny_archive(phantom: Path, folder: Path, count: int) -> None:
    """`count` files of less than 2 kB: a phantom's header with 8 x 8 pixels, 100 files a patient."""
    path, uid = next(_instances(phantom))
    dataset = pydicom.dcmread(path)
    _set_pixels(dataset, np.zeros((8, 8), np.uint8))
    dataset.PatientID = "P0000000"
    content = _written(dataset)
    for number in range(count):
        own = content.replace(uid.encode(), _other_uid(uid.encode(), number))
        _write(
            folder / f"{number // 100:05d}" / f"{number % 100:02d}",
            own.replace(b"P0000000", b"P%07d" % (number // 100)),
        )


def mixed_archive(phantom: Path, folder: Path, of_each: int) -> None:
    """Writes `of_each` stills of each kind found in archives, and as many again in one zip."""
    frames = _frames(phantom)
    kinds: dict[str, Callable[[Dataset, Pixels], None]] = {
        "grey": _set_pixels,
        "rgb": lambda dataset, grey: _set_pixels(dataset, np.stack([grey] * 3, -1)),
        "jpeg": lambda dataset, grey: _set_jpeg(dataset, [grey]),
        "rle": _set_rle,
        "jpeg2000": _set_jpeg_2000,
    }
    for kind, set_pixels in kinds.items():
        for number in range(of_each):
            _write(folder / kind / f"{number}.dcm", _still(next(frames), set_pixels))
    with zipfile.ZipFile(folder / "export.zip", "w", zipfile.ZIP_DEFLATED) as export:
        for number in range(of_each):
            export.writestr(f"DICOM/IM{number:04d}", _still(next(frames), kinds["rgb"]))


def cine_archive(phantom: Path, folder: Path, cines: int, length: int) -> None:
    """Writes JPEG Baseline cines in colour, each of `length` frames."""
    frames = _frames(phantom)
    for number in range(cines):
        dataset, grey = next(frames)
        _set_jpeg(dataset, [np.roll(grey, frame, axis=1) for frame in range(length)])
        _write(folder / f"{number}.dcm", _written(dataset))


def _instances(phantom: Path) -> Iterator[tuple[Path, str]]:
    """The phantom's valid ultrasound images and their SOPInstanceUIDs."""
    seen = set()
    for path in sorted((phantom / "archive").rglob("*")):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            uid = str(header.SOPInstanceUID)
            if header.Modality == "US" and header.Rows and uid not in seen and path.stat().st_size > 4000:
                seen.add(uid)
                yield path, uid
        except Exception:
            continue


def _decodes(path: Path) -> bool:
    try:
        return bool(pydicom.dcmread(path).pixel_array.size)
    except Exception:
        return False


def _frames(phantom: Path) -> Iterator[tuple[Dataset, Pixels]]:
    """An endless sequence of headers, each with a new SOPInstanceUID, and grey frames."""
    while True:
        for path, _ in _instances(phantom):
            try:
                dataset = pydicom.dcmread(path)
                pixels = dataset.pixel_array
            except Exception:
                continue
            if pixels.ndim == 2 and pixels.dtype == np.uint8:
                dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
                large = Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
                yield dataset, np.asarray(large)


def _other_uid(uid: bytes, number: int) -> bytes:
    """A new UID as long as `uid`."""
    return uid[:-10] + b"%010d" % (number + 1)


def _still(made: tuple[Dataset, Pixels], set_pixels: Callable[[Dataset, Pixels], None]) -> bytes:
    set_pixels(*made)
    return _written(made[0])


def _set_pixels(dataset: Dataset, pixels: Pixels) -> None:
    """Stores native pixels, shape (H, W) or (H, W, 3), and deletes the region, which has the old size."""
    colour = pixels.ndim == 3
    dataset.set_pixel_data(pixels, "RGB" if colour else "MONOCHROME2", 8, generate_instance_uid=False)
    dataset.pop("SequenceOfUltrasoundRegions", None)


def _set_jpeg(dataset: Dataset, frames: list[Pixels]) -> None:
    """Stores JPEG Baseline with subsampled colour, as scanners do; several frames make a cine."""
    _set_pixels(dataset, np.stack([frames[0]] * 3, -1))
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.NumberOfFrames = len(frames)
    _encapsulated(dataset, JPEGBaseline8Bit, [_encoded(frame, "JPEG", quality=90, subsampling=1) for frame in frames])


def _set_rle(dataset: Dataset, grey: Pixels) -> None:
    _set_pixels(dataset, np.stack([grey] * 3, -1))
    dataset.compress(RLELossless, generate_instance_uid=False)


def _set_jpeg_2000(dataset: Dataset, grey: Pixels) -> None:
    _set_pixels(dataset, grey)
    _encapsulated(dataset, JPEG2000Lossless, [_encoded(grey, "JPEG2000", no_jp2=True)])


def _encapsulated(dataset: Dataset, syntax: UID, frames: list[bytes]) -> None:
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax


def _encoded(grey: Pixels, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey).convert("RGB" if kind == "JPEG" else "L").save(buffer, kind, **options)
    return buffer.getvalue()


def _written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
