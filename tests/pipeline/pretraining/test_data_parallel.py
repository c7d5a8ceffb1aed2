"""Training in two processes equals training in one that normalizes each half of the batch separately.

Belongs here: real processes, started by torchrun, over Gloo. Not here: how patients are dealt (test_dataset.py).
"""

import os
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from pipeline.errors import UserError
from pipeline.images.batches import center_patch, fit_normalization
from pipeline.pretraining import job
from pipeline.pretraining.context_encoder import TRAIN_METRICS
from pipeline.pretraining.contrastive_loss import contrastive_loss, ignored_views, label_weights
from pipeline.pretraining.dataset import full_validation_batches, training_batches
from pipeline.pretraining.encoder_scores import EncoderScores
from pipeline.pretraining.masked_patches import MaskedBatches, patch_errors
from pipeline.pretraining.pretrain import pretrain
from pipeline.pretraining.two_views import TwoViews
from pipeline.progress import silent
from pipeline.settings import Augmentation
from pipeline.training.distributed import Group
from pipeline.training.tensors import read_tensors
from tests.conftest import ROOT
from tests.pipeline.pretraining.conftest import make_pool
from tests.pipeline.pretraining.data_parallel import (
    CONTRAST,
    HALF,
    MASKED,
    NORMALIZATION,
    STEPS,
    contrastive_networks,
    controlled,
    double,
    networks,
    settings,
    spark_network,
)

pytestmark = pytest.mark.integration


def torchrun(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run([*start, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    done = torchrun("-m", "tests.pipeline.pretraining.data_parallel", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return [read_tensors(folder / f"rank-{rank}.safetensors") for rank in (0, 1)]


def halves_in_one_process():
    """Equations 2 and 3 on both halves of each batch; every network call sees one half, every step both."""
    pool = make_pool(count=28, train=20)
    normalization = fit_normalization(pool.images, pool.train)
    shards = [training_batches(pool.shard(rank, 2), normalization, settings(), 1) for rank in (0, 1)]
    network, discriminator = networks()
    of_f = torch.optim.Adam(network.parameters(), settings().learning_rate)
    of_d = torch.optim.Adam(discriminator.parameters(), settings().discriminator_learning_rate)
    rows = []
    for _ in range(STEPS):
        halves = [double(next(shard)) for shard in shards]
        fakes = [network(half.x_N1HW) for half in halves]
        losses_d = [
            (1 - discriminator(center_patch(half.x_N1HW), half.labels_NL)).relu().mean()
            + (1 + discriminator(fake.detach(), half.labels_NL)).relu().mean()
            for half, fake in zip(halves, fakes, strict=True)
        ]
        of_d.zero_grad()
        (sum(losses_d) / 2).backward()
        of_d.step()
        losses_f = [
            0.999 * mse_loss(fake, center_patch(half.x_N1HW)) - 0.1 * discriminator(fake, half.labels_NL).mean()
            for half, fake in zip(halves, fakes, strict=True)
        ]
        of_f.zero_grad()
        (sum(losses_f) / 2).backward()
        of_f.step()
        rows.append([sum(losses_f).item() / 2, sum(losses_d).item() / 2])
    return np.array(rows), network


def test_two_processes_have_the_losses_and_weights_of_one_with_batch_norm_per_half(ranks):
    expected, network = halves_in_one_process()
    columns = [TRAIN_METRICS.index(name) for name in ("train_loss", "train_discriminator_loss")]
    np.testing.assert_allclose(ranks[0]["steps"][:, columns].numpy(), expected, rtol=1e-6)
    for name, parameter in network.named_parameters():
        if name.startswith("encoder") and name.endswith("0.bias"):
            continue  # batch norm takes a bias away again: its gradient is noise alone
        np.testing.assert_allclose(
            ranks[0][f"weights.{name}"].numpy(), parameter.detach().numpy(), rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_validation_covers_the_images_of_both_processes_and_d_normalizes_by_each_ones_own(ranks):
    """Each process's own batches of D's scores, of four images each, weighed together; MSE needs no batch."""
    pool = make_pool(count=28, train=20)
    normalization = fit_normalization(pool.images, pool.train)
    network, discriminator = networks()
    weights = {name.removeprefix("weights."): t for name, t in ranks[0].items() if name.startswith("weights.")}
    network.load_state_dict(weights)
    discriminator.load_state_dict({name.removeprefix("d."): t for name, t in ranks[0].items() if name.startswith("d.")})
    network.float().eval()
    discriminator.float().train()
    scores, errors = [], []
    for rank in (0, 1):
        share = pool.shard(rank, 2)
        for batch, own in full_validation_batches(share, normalization, settings()):
            with torch.no_grad():
                fake, real = network(batch.x_N1HW), center_patch(batch.x_N1HW)
                scores += discriminator(fake, batch.labels_NL)[:own].tolist()
            errors += (fake - real).square().mean(dim=(1, 2, 3))[:own].tolist()
    assert len(errors) == 8, "every validation image once"
    val_loss, val_mse, _, score_inpainted, _ = ranks[0]["validation"].tolist()
    assert val_mse == pytest.approx(np.mean(errors), rel=1e-4)
    assert score_inpainted == pytest.approx(np.mean(scores), rel=1e-3)
    assert val_loss == pytest.approx(0.999 * np.mean(errors) - 0.1 * np.mean(scores), rel=1e-4)


def test_two_processes_compare_the_views_of_both(ranks):
    """The loss of all six images at once, with batch norm for each half by itself."""
    pool = make_pool(count=28, train=20)
    shards = [TwoViews(pool.shard(rank, 2), NORMALIZATION, CONTRAST) for rank in (0, 1)]
    network = nn.Sequential(*contrastive_networks())
    optimizer = torch.optim.Adam(network.parameters(), CONTRAST.learning_rate)
    losses = []
    for halves in islice(zip(*(shard.training(1) for shard in shards), strict=True), STEPS):
        embeddings = [network(half.x_M1HW.double()) for half in halves]
        firsts, seconds = [half[:HALF] for half in embeddings], [half[HALF:] for half in embeddings]
        labels, known = (torch.cat([getattr(half, name) for half in halves]) for name in ("labels_NL", "known_NL"))
        weights = label_weights(labels, known)
        loss = contrastive_loss(torch.cat(firsts + seconds), weights, ignored_views(weights), CONTRAST.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(ranks[0]["losses"][:, 0].numpy(), losses, rtol=1e-6)
    for name, parameter in network.named_parameters():
        if not name.endswith("0.bias"):  # batch norm takes it away again
            np.testing.assert_allclose(
                ranks[0][f"contrast.{name}"].numpy(), parameter.detach().numpy(), rtol=1e-5, atol=1e-6, err_msg=name
            )


def test_two_processes_mask_their_own_images_and_train_on_the_mean_of_their_errors(ranks):
    pool = make_pool(count=28, train=20)
    shards = [MaskedBatches(NORMALIZATION, MASKED).training(pool.shard(rank, 2), 1, 0) for rank in (0, 1)]
    network, losses = spark_network(), []
    optimizer = torch.optim.Adam(network.parameters(), MASKED.learning_rate)
    for halves in islice(zip(*shards, strict=True), STEPS):
        errors = []
        for half in halves:
            x = double(half.images).x_N1HW
            errors.append(patch_errors(network(x, half.visible)[0], x, half.visible))
        assert not torch.equal(halves[0].visible.cells_Nhw, halves[1].visible.cells_Nhw)
        loss = torch.cat(errors).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(ranks[0]["masked losses"][:, 0].numpy(), losses, rtol=1e-6)
    for name, parameter in network.named_parameters():
        if name.startswith("decoder.to_grey"):
            expected = parameter.detach().numpy()
            np.testing.assert_allclose(ranks[0][f"spark.{name}"].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_mean_of_both_processes_shares_adjusts_the_weight_of_the_adversarial_term(ranks):
    pool = make_pool(count=28, train=20)
    normalization = fit_normalization(pool.images, pool.train)
    network, discriminator = networks(spectral=True)
    discriminator.eval()  # a measurement makes no power iteration
    shares = []
    for rank in (0, 1):
        half = double(next(training_batches(pool.shard(rank, 2), normalization, controlled(), 1)))
        fake = network(half.x_N1HW)
        terms = (
            -0.1 * discriminator(fake, half.labels_NL).mean(),
            0.999 * mse_loss(fake, center_patch(half.x_N1HW)),
        )
        norms = []
        for term in terms:
            gradients = torch.autograd.grad(term, list(network.encoder.parameters()), retain_graph=True)
            norms.append(np.sqrt(sum(gradient.square().sum().item() for gradient in gradients)))
        shares.append(norms[0] / norms[1])
    assert ranks[0]["adjusted"].item() == pytest.approx(0.1 * 0.3 / np.mean(shares), rel=1e-4)


def test_one_process_scores_the_encoder_on_the_images_of_all(ranks):
    pool = make_pool(count=28, train=20)
    encoder = networks()[0].encoder
    prefix = "weights.encoder."
    encoder.load_state_dict({name.removeprefix(prefix): t for name, t in ranks[0].items() if name.startswith(prefix)})
    expected = EncoderScores(encoder.float(), pool, fit_normalization(pool.images, pool.train), Augmentation())()
    assert ranks[1]["scores"].tolist() == pytest.approx(list(expected.values()), rel=1e-4)


def test_both_processes_end_with_the_same_networks_and_batch_norm_statistics(ranks):
    assert any("running_var" in name for name in ranks[0])
    for name, tensor in ranks[0].items():
        assert torch.equal(tensor, ranks[1][name]), name


@pytest.mark.usefixtures("tiny_backbone")
def test_a_batch_that_the_processes_cannot_share_raises_a_user_error(tmp_path, pool, settings, monkeypatch):
    monkeypatch.setattr(job, "group", lambda: Group(0, 3))
    with pytest.raises(UserError, match=r"batch_size 4 cannot be shared out among 3 processes"):
        pretrain("resnet50", "ce", pool, settings, tmp_path, silent, lambda *_: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("tiny_backbone")
def test_batch_norm_over_all_processes_needs_gpus(tmp_path, pool, settings, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(job, "group", lambda: Group(0, 2))
    synchronized = settings.model_copy(update={"sync_batch_norm": True})
    with pytest.raises(UserError, match="sync_batch_norm needs GPUs"):
        pretrain("resnet50", "ce", pool, synchronized, tmp_path, silent, lambda *_: None)
