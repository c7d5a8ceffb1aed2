import pytest
import torch

from benchmarks.plain_pretraining import BATCH, LAMBDA_ADV, LAMBDA_REC, PlainTraining, center, loss_f, memory_batches
from pipeline.methods.ce import ContextEncoderSettings
from pipeline.networks.decoder import Decoder
from pipeline.networks.discriminator import Discriminator
from pipeline.networks.encoders import build_encoder
from pipeline.pretraining.context_encoder import ContextEncoder
from pipeline.pretraining.losses import adversarial_loss, discriminator_loss, reconstruction_loss

pytestmark = pytest.mark.integration

LABELS = 3
CPU = torch.device("cpu")


def projects_own(backbone):
    encoder = build_encoder(backbone)
    return ContextEncoder(encoder, Decoder(encoder.channels[-1])), Discriminator(LABELS)


def copy_weights(theirs, ours):
    """From the plain networks to the project's: the same tensors in the same order, the decoder's last."""
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert a.shape == b.shape
        a.copy_(b)


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16_bn"])
def test_the_plain_loop_trains_the_projects_networks_by_its_losses(backbone):
    torch.manual_seed(0)
    plain = PlainTraining(backbone, LABELS, CPU)
    network, discriminator = projects_own(backbone)
    for ours, theirs in ((network, plain.generator), (discriminator, plain.discriminator)):
        copy_weights(theirs, ours)
        for each in (ours, theirs):
            each.double()
    x, labels = torch.randn(2, 1, 64, 64).double(), torch.randint(0, 2, (2, LABELS)).double()
    patch = x[..., 16:48, 16:48]
    with torch.no_grad():
        inpainted = network(x)
        expected_d = discriminator_loss(discriminator(patch, labels), discriminator(inpainted, labels))
        adversarial = adversarial_loss(discriminator(inpainted, labels))
        expected_f = LAMBDA_ADV * adversarial + LAMBDA_REC * reconstruction_loss(inpainted, patch)
        of_f = loss_f(plain.discriminator, patch, inpainted, labels)
    of_d, _ = plain.step(x, labels)
    assert of_d == pytest.approx(expected_d.item(), rel=1e-9)
    assert of_f.item() == pytest.approx(expected_f.item(), rel=1e-9)


def test_a_plain_step_moves_both_networks():
    torch.manual_seed(0)
    plain = PlainTraining("resnet50", LABELS, CPU)
    parameters = dict(torch.nn.ModuleList([plain.generator, plain.discriminator]).named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    plain.epoch([(torch.randn(2, 1, 64, 64), torch.ones(2, LABELS))])
    # While every score is within the hinges, real and inpainted cancel in the gradient of D's last bias.
    still = {name for name, parameter in parameters.items() if torch.equal(parameter, before[name])}
    assert still <= {"1.classifier.bias"}


def test_the_plain_loop_weighs_its_losses_as_the_recipe_does():
    settings = ContextEncoderSettings()
    assert (settings.lambda_adv, settings.lambda_rec, settings.batch_size) == (LAMBDA_ADV, LAMBDA_REC, BATCH)


def test_the_center_is_half_of_either_side():
    x = torch.arange(64.0).view(1, 1, 8, 8)
    assert center(x).flatten().tolist() == [8 * row + column for row in (2, 3, 4, 5) for column in (2, 3, 4, 5)]


def test_an_epoch_shows_every_image_once_as_z_scores():
    grey = torch.arange(2 * BATCH, dtype=torch.uint8)[:, None, None].expand(-1, 4, 4)
    labels = torch.arange(2 * BATCH).float()[:, None]
    batches = list(memory_batches(grey, labels, mean=10.0, sd=2.0, device=CPU))
    images, shown = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert images.shape == (2 * BATCH, 1, 4, 4)
    assert sorted(shown.flatten().tolist()) == list(range(2 * BATCH))
    assert torch.equal(images[:, 0, 0, 0], (shown.flatten() - 10) / 2)
