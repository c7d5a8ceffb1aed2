"""Speed of fine-tuning in memory compared with a plain loop: small batches, both kinds of task, both backbones.

`python -m benchmarks.finetuning` runs it alone and needs only PyTorch and this project, for instance on a GPU machine.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.isolated_process import IsolatedProcess, Parts
from benchmarks.measure import Row, compare, table
from benchmarks.plain_finetuning import BATCH, Augmented, Kind, PlainClassifier, PlainFineTuning, PlainUNet, loader
from benchmarks.pretraining import NORMALIZATION, measuring_device
from pipeline.downstream.finetune import FineTuning
from pipeline.downstream.predictions import Cell
from pipeline.downstream.task_images import TaskImages
from pipeline.networks.encoders import build_encoder, save_encoder
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.recipe.arms import Arm
from pipeline.recipe.downstream import Task
from pipeline.settings import Backbone, Precision
from pipeline.training.device import supports_bfloat16

CLASSES = {"ordinal": ("0", "1", "2", "3", "4"), "segmentation": ("background", "nodule")}
_BACKBONES: tuple[Backbone, ...] = ("resnet50", "vgg16_bn")
PLAIN = "an eager loop in {precision}: contiguous tensors, plain Adam, a DataLoader that augments"


@dataclass(frozen=True)
class Case:
    """Fine-tuning on a task of the paper's batch size; `steps` an epoch.

    `precision` is the project's; the plain loop computes in float32, on a GPU in TF32.
    """

    kind: Kind
    backbone: Backbone
    height: int
    width: int
    steps: int
    arm: Arm = "ce_dcm"
    precision: Precision = "float32"

    @property
    def batch(self) -> int:
        """Images of a step."""
        return BATCH[self.kind]

    @property
    def images(self) -> int:
        """Images of an epoch."""
        return self.steps * self.batch

    @property
    def name(self) -> str:
        """Name in the table."""
        frozen = ", frozen encoder" if self.arm == "ce_dcm_frozen" else ""
        return f"{self.backbone} {self.kind}{frozen}, {self.height}×{self.width}, batch {self.batch}, {self.precision}"


def cases(device: torch.device) -> tuple[Case, ...]:
    """The paper's size on a GPU; on a CPU a small size with just enough steps to time."""
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if supports_bfloat16(device) else ("float32",)
    if device.type == "cuda":
        kinds = [(kind, backbone) for kind in BATCH for backbone in _BACKBONES]
        return tuple(Case(*kind, 256, 384, 100, precision=precision) for kind in kinds for precision in precisions)
    return (
        *(Case("ordinal", "resnet50", 64, 96, 12, precision=precision) for precision in precisions),
        *(Case("segmentation", "resnet50", 64, 96, 6, precision=precision) for precision in precisions),
        Case("segmentation", "resnet50", 64, 96, 12, "ce_dcm_frozen"),
        Case("ordinal", "vgg16_bn", 64, 96, 8),
        Case("segmentation", "vgg16_bn", 64, 96, 4),
        Case("ordinal", "resnet50", 128, 192, 6),
    )


def finetuning(case: Case) -> Row:
    """Compares the project's training with the plain loop."""
    tf32 = measuring_device().type == "cuda"
    with IsolatedProcess(_our_parts, case) as ours, IsolatedProcess(_plain_parts, case) as plain:
        ours("epoch")
        plain("epoch")
        return compare(
            f"fine-tune {case.name}",
            "images",
            case.images,
            lambda: ours("epoch"),
            lambda: plain("epoch"),
            PLAIN.format(precision="TF32" if tf32 else "float32"),
        )


def _our_parts(case: Case) -> Parts:
    measuring_device()
    training = our_training(case)

    def epoch() -> float:
        steps = [training.step(batch) for batch in training.batches(1, 0)]
        return torch.cat(steps).mean().item()

    return {"epoch": epoch}


def our_training(case: Case) -> FineTuning:
    """The project's training on noise, from an encoder with random weights."""
    task = Task(
        kind=case.kind,
        classes=CLASSES[case.kind],
        manifest="none",
        epochs=100,
        batch_size=case.batch,
        learning_rate={case.backbone: 1e-4},
    )
    with TemporaryDirectory() as scratch:
        save_encoder(build_encoder(case.backbone), Path(scratch, ENCODER))
        Preprocessing(case.backbone, case.height, case.width, NORMALIZATION.mean, NORMALIZATION.sd).write(Path(scratch))
        cell = Cell("benchmark", case.backbone, case.arm, case.kind, 1.0, 0)
        return FineTuning(cell, task, _task_images(case), Path(scratch), case.precision)


def _plain_parts(case: Case) -> Parts:
    device, (grey, truth) = measuring_device(), random_images(case)
    network = (PlainClassifier if case.kind == "ordinal" else PlainUNet)(case.backbone, len(CLASSES[case.kind]))
    thresholds = torch.arange(len(CLASSES["ordinal"]) - 1)
    targets = (truth[:, None] > thresholds).float() if case.kind == "ordinal" else truth
    weights = torch.ones(len(thresholds)) if case.kind == "ordinal" else None
    plain = PlainFineTuning(network, weights, device, frozen=case.arm == "ce_dcm_frozen")
    batches = loader(Augmented(grey, targets, NORMALIZATION.mean, NORMALIZATION.sd), case.batch)
    return {"epoch": lambda: plain.epoch(batches)}


def random_images(case: Case) -> tuple[Tensor, Tensor]:
    """Noise, uint8, shape (N, H, W), and its classes or masks."""
    torch.manual_seed(0)
    shape = (case.images, case.height, case.width)
    grey = torch.randint(0, 256, shape, dtype=torch.uint8)
    if case.kind == "ordinal":
        return grey, torch.randint(0, len(CLASSES["ordinal"]), (case.images,))
    return grey, torch.randint(0, 2, shape, dtype=torch.uint8)


def _task_images(case: Case) -> TaskImages:
    """The random images as a task, each from a different patient, all for training."""
    grey, truth = random_images(case)
    count, none = case.images, torch.tensor([], dtype=torch.int64)
    numbers, patients = torch.arange(count), tuple(f"patient {number}" for number in range(count))
    return TaskImages(
        grey, truth, tuple(numbers.tolist()), patients, ("whole",) * count, (None,) * count, numbers, none, none, ""
    )


def measure() -> list[Row]:
    """A row per case."""
    return [finetuning(case) for case in cases(measuring_device())]


def short() -> list[Row]:
    """The row of the first case."""
    return [finetuning(cases(measuring_device())[0])]


if __name__ == "__main__":
    print(table(measure()))
