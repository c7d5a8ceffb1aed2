"""Golden losses: the first five steps of every trained method and backbone give the recorded losses.

Belongs here: noticing that training has changed. Not here: whether it is right, which NumPy decides in
test_losses.py, test_context_encoder.py and test_discriminator.py. After a change that is meant, write them anew:

    python -m tests.pipeline.pretraining.test_golden

They are computed in float64. In float32 the last digits, in which CPUs differ and from which Adam's first steps make
whole steps in either direction, grow to tenths of a score within five steps; in float64 to 2e-7 (measured: one thread
and two; SSE, AVX2 and AVX-512), and `TOLERANCE` is fifty times that.
"""

import json
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from pipeline.files import write_json
from pipeline.networks.encoders import build_encoder
from pipeline.pretraining import job
from pipeline.pretraining import pretrain as pretrain_module
from pipeline.pretraining.pretrain import pretrain
from pipeline.progress import silent
from tests.pipeline.pretraining.conftest import AllSettings, make_pool, settings_of

GOLDEN = Path(__file__).parent / "golden"
SIZES = {"resnet50": (32, 64), "vgg16_bn": (32, 32)}
"""The smallest, in pixels, at which last digits do not grow further: batch norm over four values makes ResNet wild."""
ARMS = list(product(SIZES, ("dcm", "ce", "ce_dcm", "ce_aux")))
STEPS = 5
TOLERANCE = 1e-5
LOSSES = (
    "train_loss",
    "train_reconstruction",
    "train_adversarial",
    "train_discriminator_loss",
    "train_score_real",
    "train_score_inpainted",
    "train_label_loss",
    "val_loss",
)


@contextmanager
def float64():
    """Within the block training computes in float64, on one thread, and no encoder is written."""
    built, threads = cache(build_encoder), torch.get_num_threads()  # of one seed the same for every method
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        patch.setattr(job, "build_encoder", lambda backbone: deepcopy(built(backbone)))
        patch.setattr(pretrain_module, "_save", lambda *_: None)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(1)  # several wait for each other more than they work at this size
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(torch.float32)


def losses(backbone, method, folder):
    """The losses of five epochs of one step each, with the paper's learning rates, and of validation after each."""
    told = []
    pool, settings = make_pool(6, 4, *SIZES[backbone]), settings_of(method, AllSettings(epochs=STEPS, batch_size=4))
    outcome = pretrain(backbone, method, pool, settings, folder, silent, lambda epoch, metrics: told.append(metrics))
    assert outcome.status == "ran"
    return [{name: metrics[name] for name in LOSSES if name in metrics} for metrics in told]


@pytest.fixture(scope="module", autouse=True)
def _float64():
    with float64():
        yield


@pytest.mark.parametrize(("backbone", "method"), ARMS)
@pytest.mark.integration
def test_the_first_losses_are_the_recorded_ones(backbone, method, tmp_path):
    golden = json.loads((GOLDEN / f"{backbone}_{method}.json").read_text(encoding="utf-8"))
    now = losses(backbone, method, tmp_path)
    assert len(now) == len(golden) == STEPS
    for step, (new, old) in enumerate(zip(now, golden, strict=True), start=1):
        assert new == pytest.approx(old, rel=TOLERANCE), f"step {step}"


if __name__ == "__main__":
    with float64(), TemporaryDirectory() as scratch:
        for arm in ARMS:
            name = "_".join(arm)
            write_json(GOLDEN / f"{name}.json", losses(*arm, Path(scratch, name)))
