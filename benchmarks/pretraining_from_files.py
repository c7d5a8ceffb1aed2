"""Speed of pretraining from files: the image cache against a DICOM `Dataset` and MONAI's `PersistentDataset`."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydicom
import torch
from monai.data.dataset import PersistentDataset
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.archives import copies
from benchmarks.isolated_process import IsolatedProcess, Parts
from benchmarks.measure import Figure, Row, compare
from benchmarks.plain_pretraining import BATCH, PlainTraining
from benchmarks.pretraining import LABELS, NORMALIZATION, Case, Ours, cases, measuring_device, pool_of, random_labels
from benchmarks.roofline import synchronize
from pipeline.archive.cache_builder import Cache, build_cache
from pipeline.archive.scan import index_archive
from pipeline.images.cache import load_pixels
from pipeline.images.loader import image_loader
from pipeline.methods import TrainingSettings
from pipeline.pretraining.dataset import PretrainingSet, training_batches
from pipeline.privacy.identity import PUBLIC_DEMO_KEY
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images

WORKERS = 2
READ, READ_IMAGES = Images(height=256, width=384), 2048
EPOCHS = TrainingSettings().epochs
ALL_MODES = Archive(b_mode_only=False)  # the peers do not check a frame's mode either


def measure(phantom: Path, work: Path) -> tuple[list[Row], list[Figure]]:
    """Compares training from files, and reading alone; `work` is an empty folder."""
    device = measuring_device()
    rows, figures = [], []
    for number, case in enumerate(case for case in cases(device) if case.backbone == "resnet50"):
        row, more = _training(case, phantom, work / f"training-{number}")
        rows.append(row)
        figures += more
    return [*rows, *_reading(phantom, work / "reading", device)], figures


class PlainDicoms(Dataset[tuple[Tensor, Tensor]]):
    """DICOM files as images of `height` × `width`, flipped and shifted at random, read from file each time."""

    def __init__(self, paths: Sequence[Path], labels: Tensor, height: int, width: int) -> None:
        self.paths, self.labels, self.size = paths, labels, (width, height)
        mean, sd = NORMALIZATION.mean / 255, NORMALIZATION.sd / 255
        self.augment = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomAffine(degrees=0, translate=(0.1, 0.1)),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([mean], [sd]),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.augment(read_dicom(self.paths[index], self.size)), self.labels[index]


def read_dicom(path: Path, size: tuple[int, int]) -> Image.Image:
    """The file's image (the middle frame of a cine) in grey; `size` is width × height."""
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array
    if "NumberOfFrames" in dataset:
        pixels = pixels[len(pixels) // 2]
    return Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BILINEAR)


def dicom_loader(paths: Sequence[Path], labels: Tensor, case: Case) -> DataLoader[tuple[Tensor, Tensor]]:
    """Shuffled batches of `PlainDicoms` from two persistent workers."""
    dataset = PlainDicoms(paths, labels, case.height, case.width)
    return DataLoader(
        dataset, BATCH, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True, pin_memory=_pins()
    )


def _pins() -> bool:
    return torch.cuda.is_available()


def _training(case: Case, phantom: Path, work: Path) -> tuple[Row, list[Figure]]:
    """Compares an epoch from files; the project reads its cache again in every epoch."""
    paths, cache, building = _cached(phantom, work, case.images + BATCH, Images(height=case.height, width=case.width))
    with (
        IsolatedProcess(_our_parts, case, cache.folder, cache.images) as ours,
        IsolatedProcess(_plain_parts, case, paths) as plain,
    ):
        ours("epoch")
        plain("epoch")
        row = compare(
            f"train {case.name}, reading included",
            "images",
            case.images,
            lambda: ours("epoch"),
            lambda: plain("epoch"),
            f"that loop, a pydicom Dataset (pixel_array, resize, flip, shift), a DataLoader of {WORKERS} workers",
        )
        splits = [
            Figure(f"{case.name}: a step's time, sonotag", _split(*map(_timed(ours), _PARTS))),
            Figure(f"{case.name}: a step's time, plain loop", _split(*map(_timed(plain), _PARTS))),
        ]
    share = building / EPOCHS / (case.images / row.ours)
    once = Figure(f"building that image cache, once in {EPOCHS} epochs", f"{building:.1f} s, {share:.1%} of an epoch")
    return row, [once, *splits]


_PARTS = ("reading", "preparing", "training")


def _our_parts(case: Case, folder: Path, rows: pa.Table) -> Parts:
    """An epoch, and its parts each by itself; `training` has its images prepared as it goes."""
    device, labels, settings = measuring_device(), random_labels(rows.num_rows), TrainingSettings(batch_size=BATCH)

    def pool() -> PretrainingSet:
        return pool_of(torch.from_numpy(load_pixels(folder, rows)), labels)

    def read() -> None:
        ours.take(pool())
        synchronize(device)

    def epoch() -> None:
        read()
        ours.epoch()

    def prepare() -> None:
        _drain(training_batches(ours.training.pool, NORMALIZATION, settings, 1), device)

    def train() -> None:
        for batch in [next(ours.training.batches(1, 0))] * case.steps:
            ours.training.step(batch)
        synchronize(device)

    ours = Ours(case, pool(), device)
    return {"epoch": epoch, "reading": read, "preparing": prepare, "training": train}


def _plain_parts(case: Case, paths: Sequence[Path]) -> Parts:
    """An epoch, and its parts each by itself, as in one of the `WORKERS` processes beside the training."""
    device, labels = measuring_device(), random_labels(len(paths))
    plain, loader = PlainTraining(case.backbone, LABELS, device), dicom_loader(paths[: case.images], labels, case)
    dicoms = PlainDicoms(paths[: case.images], labels, case.height, case.width)
    shared = range(0, case.images, WORKERS)
    images = [read_dicom(dicoms.paths[number], dicoms.size) for number in shared]
    batch = torch.stack([dicoms.augment(image) for image in images[:1]] * BATCH), labels[:BATCH]

    def prepare() -> None:
        for image in images:
            dicoms.augment(image)
        _drain((batch[0].to(device) for _ in range(case.steps)), device)

    return {
        "epoch": lambda: plain.epoch(loader),
        "reading": lambda: _drain((read_dicom(dicoms.paths[number], dicoms.size) for number in shared), device),
        "preparing": prepare,
        "training": lambda: plain.epoch([batch] * case.steps),
    }


def _split(reading: float, preparing: float, training: float) -> str:
    total = reading + preparing + training
    return (
        f"reading and decoding {reading / total:.1%}, augmentation and transfer {preparing / total:.1%}, "
        f"forward, backward and optimizers {training / total:.1%}"
    )


def _reading(phantom: Path, work: Path, device: torch.device) -> list[Row]:
    """The images of a cache as shuffled batches of bytes on the device: the first epoch, and each later one."""
    paths, cache, _ = _cached(phantom, work, READ_IMAGES, READ)
    loader = _monai_loader(paths, work / "monai")
    order = torch.randperm(READ_IMAGES).split(BATCH)
    resident = image_loader(torch.from_numpy(load_pixels(cache.folder, cache.images)), device)

    def first() -> None:
        images = image_loader(torch.from_numpy(load_pixels(cache.folder, cache.images)), device)
        _drain(images.batches(order), device)

    def monai() -> None:
        _drain((batch.to(device) for batch in loader), device)

    monai()  # fills its cache
    what = f"read the image cache, {READ.height}×{READ.width}"
    peer = f"MONAI's PersistentDataset, filled, and a DataLoader of {WORKERS} workers"
    return [
        compare(f"{what}, first epoch", "images", READ_IMAGES, first, monai, peer),
        compare(
            f"{what}, later epochs", "images", READ_IMAGES, lambda: _drain(resident.batches(order), device), monai, peer
        ),
    ]


def _monai_loader(paths: Sequence[Path], cache: Path) -> DataLoader[Tensor]:
    dataset: Any = PersistentDataset([str(path) for path in paths], _read_bytes, cache)
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True, pin_memory=_pins())


def _read_bytes(path: str) -> Tensor:
    """The file's image, uint8, shape (1, H, W): a quarter of float32's size to read back."""
    return torch.from_numpy(np.array(read_dicom(Path(path), (READ.width, READ.height)))).unsqueeze(0)


def _cached(phantom: Path, work: Path, count: int, size: Images) -> tuple[list[Path], Cache, float]:
    """An archive of `count` files, its image cache at `size`, and the seconds that building the cache took."""
    archive, private = work / "archive", work / "private"
    paths = copies(phantom, archive, count)
    records = index_archive(str(archive), private, PUBLIC_DEMO_KEY, ALL_MODES).records
    started = time.perf_counter()
    cache = build_cache(records, str(archive), private, PUBLIC_DEMO_KEY, work / "images", size, ALL_MODES)
    if cache.images.num_rows != count:
        raise RuntimeError("The benchmark's archive contains rejected files, so the comparison is invalid.")
    return paths, cache, time.perf_counter() - started


def _drain(batches: Iterable[object], device: torch.device) -> None:
    for _ in batches:
        pass
    synchronize(device)


def _timed(side: IsolatedProcess) -> Callable[[str], float]:
    """A function that returns the seconds of a part of `side`, the fastest of three runs."""

    def seconds(part: str) -> float:
        times = []
        for _ in range(3):
            started = time.perf_counter()
            side(part)
            times.append(time.perf_counter() - started)
        return min(times)

    return seconds
