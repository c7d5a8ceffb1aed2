"""Networks that see a part of their images: what is hidden has no effect, and what is visible is computed as by hand.

Belongs here: masks of maps, sparse layers, which backbones are accepted. Not here: training (test_spark.py).
"""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.networks import hierarchical_decoder
from pipeline.networks.encoders import build_encoder
from pipeline.networks.hierarchical_decoder import HierarchicalDecoder
from pipeline.networks.sparse import VisibleCells, require_maskable, sparse
from tests.pipeline.pretraining.conftest import NARROW, TinyEncoder

CPU = torch.device("cpu")
CELLS = torch.tensor([[[1, 0, 0, 1], [0, 0, 0, 0]], [[0, 1, 0, 0], [1, 0, 0, 0]]]).bool()
"""Two images of 2 × 4 cells."""


@pytest.fixture
def visible():
    return VisibleCells(CELLS, CPU)


def cells(rows=2, columns=3, count=2, share=0.4, seed=0):
    draws = torch.Generator().manual_seed(seed)
    found = torch.rand(count, rows, columns, generator=draws) < share
    found[:, 0, 0] = True
    found[:, -1, -1] = False
    return found


def with_other_hidden_pixels(x, visible):
    seen = visible.at(*x.shape[2:])
    return torch.where(seen, x, torch.randn_like(x) * 100), seen


class TestVisibleCells:
    """Maps of other sizes than the grid of cells."""

    def test_a_finer_map_repeats_the_cells(self, visible):
        expected = np.kron(CELLS[0].numpy(), np.ones((8, 8)))
        np.testing.assert_array_equal(visible.at(16, 32)[0, 0], expected)

    def test_a_position_of_a_coarser_map_is_visible_if_a_cell_of_it_is(self, visible):
        assert visible.at(1, 2)[:, 0].tolist() == [[[True, True]], [[True, False]]]

    def test_positions_are_numbered_through_all_images(self, visible):
        assert visible.positions(2, 4).tolist() == [0, 3, 8 + 1, 8 + 4]

    def test_the_mean_is_over_visible_positions(self, visible):
        x = torch.randn(2, 3, 4, 8)
        seen = np.kron(CELLS.numpy(), np.ones((1, 2, 2))).astype(bool)
        expected = [[x[n, c].numpy()[seen[n]].mean() for c in range(3)] for n in range(2)]
        np.testing.assert_allclose(visible.mean(x)[:, :, 0, 0], expected, rtol=1e-5)


class TestLayers:
    """One layer at a time."""

    def test_batch_norm_uses_the_statistics_of_visible_positions_alone(self, visible):
        norm, x = nn.BatchNorm2d(3), torch.randn(2, 3, 4, 8) * 3 + 5
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
        with sparse(norm, visible):
            found = norm(x).detach().numpy()
        seen = np.kron(CELLS.numpy(), np.ones((1, 2, 2))).astype(bool)
        for channel in range(3):
            values = x[:, channel].double().numpy()[seen]
            scale, shift = norm.weight[channel].item(), norm.bias[channel].item()
            expected = np.zeros(seen.shape)
            expected[seen] = (values - values.mean()) / np.sqrt(values.var() + 1e-5) * scale + shift
            np.testing.assert_allclose(found[:, channel], expected, rtol=1e-4, atol=1e-5)
            assert norm.running_mean[channel].item() == pytest.approx(0.1 * values.mean(), rel=1e-5)
            assert norm.running_var[channel].item() == pytest.approx(0.9 + 0.1 * values.var(ddof=1), rel=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_gradient_of_batch_norm_is_that_of_the_formula(self, visible, dtype):
        norm, x = nn.BatchNorm2d(3).to(dtype), torch.randn(2, 3, 2, 4, dtype=dtype, requires_grad=True)
        weights = torch.randn(2, 3, 2, 4, dtype=dtype)
        with sparse(norm, visible):
            (found,) = torch.autograd.grad((norm(x) * weights).sum(), x)
        seen = CELLS[:, None].to(dtype)
        mean = (x * seen).sum((0, 2, 3), keepdim=True) / 4
        variance = ((x - mean).square() * seen).sum((0, 2, 3), keepdim=True) / 4
        (expected,) = torch.autograd.grad((((x - mean) / (variance + 1e-5).sqrt()) * seen * weights).sum(), x)
        torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize("layer", [nn.Conv2d(3, 2, 3, padding=1), nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)])
    def test_a_layer_that_reads_neighbours_reads_zeros_where_they_are_hidden(self, visible, layer):
        x = torch.rand(2, 3, 2, 4)
        with sparse(layer, visible):
            found = layer(x)
        assert torch.equal(found, layer(x * CELLS[:, None]))

    def test_afterwards_the_layers_are_as_before(self, visible):
        encoder, x = TinyEncoder().eval(), torch.randn(2, 1, 64, 128)
        before = encoder(x)
        with pytest.raises(ZeroDivisionError), sparse(encoder, visible):
            assert not torch.equal(encoder(x), before)
            _ = 1 / 0
        assert torch.equal(encoder(x), before)


def test_hidden_pixels_change_no_visible_feature_and_no_running_statistic():
    visible, x = VisibleCells(cells(8, 12), CPU), torch.randn(2, 1, 64, 96)
    found = []
    for image in (x, with_other_hidden_pixels(x, visible)[0]):
        torch.manual_seed(0)
        encoder = TinyEncoder()
        with sparse(encoder, visible):
            levels = encoder.pyramid(image)
        seen = [level[visible.at(*level.shape[2:]).expand_as(level)] for level in levels]
        found.append([*seen, *encoder.buffers()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_visible_pixels_change_features():
    visible, x = VisibleCells(cells(), CPU), torch.randn(2, 1, 64, 96)
    encoder = TinyEncoder().eval()
    with sparse(encoder, visible):
        assert not torch.equal(encoder(x), encoder(x + visible.at(64, 96)))


def test_a_network_that_sees_all_is_the_dense_one():
    visible, x = VisibleCells(torch.ones(2, 2, 3).bool(), CPU), torch.randn(2, 1, 64, 96)
    encoder = TinyEncoder()
    for training in (True, False):
        encoder.train(training)
        dense = encoder.pyramid(x)
        with sparse(encoder, visible):
            torch.testing.assert_close(encoder.pyramid(x), dense)


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16_bn", "resnet18", "convnext_tiny"])
@pytest.mark.integration
def test_backbones_hide_pixels_and_see_all_of_a_visible_image(backbone):
    encoder, x = build_encoder(backbone).eval(), torch.randn(2, 1, 64, 96)
    require_maskable(encoder, backbone)
    visible, whole = VisibleCells(cells(4, 6), CPU), VisibleCells(torch.ones(2, 2, 3).bool(), CPU)
    with torch.no_grad():
        with sparse(encoder, whole):
            torch.testing.assert_close(encoder.pyramid(x), encoder.pyramid(x))
        with sparse(encoder, visible):
            one, other = encoder.pyramid(x), encoder.pyramid(with_other_hidden_pixels(x, visible)[0])
    for level, same in zip(one, other, strict=True):
        seen = visible.at(*level.shape[2:]).expand_as(level)
        assert torch.equal(level[seen], same[seen])


@pytest.mark.integration
def test_a_cell_is_computed_as_an_image_of_its_own():
    """ConvNeXt normalizes position by position: a visible cell amid hidden ones is an image with zeros around it."""
    encoder = build_encoder("convnext_tiny").eval()
    x = torch.zeros(1, 1, 96, 96)
    x[..., 32:64, 32:64] = torch.randn(32, 32)
    middle = torch.zeros(1, 3, 3).bool()
    middle[0, 1, 1] = True
    with torch.no_grad(), sparse(encoder, VisibleCells(middle, CPU)):
        found = encoder(x)[0, :, 1, 1]
    with torch.no_grad(), sparse(encoder, VisibleCells(torch.ones(1, 1, 1).bool(), CPU)):
        torch.testing.assert_close(found, encoder(x[..., 32:64, 32:64])[0, :, 0, 0])


class SqueezeAndExcitation(TinyEncoder):
    def __init__(self):
        super().__init__()
        self.backbone.append(nn.Conv2d(8, 8, 1))

    def pyramid(self, x_N1HW):
        *levels, last = super().pyramid(x_N1HW)[:-1]
        return [*levels, last * self.backbone[-1](last.mean(dim=(2, 3), keepdim=True)).sigmoid()]


class GroupNorm(TinyEncoder):
    def __init__(self):
        super().__init__()
        self.backbone.insert(2, nn.GroupNorm(2, 4))


@pytest.mark.parametrize(("kind", "layer"), [(SqueezeAndExcitation, "5 (Conv2d)"), (GroupNorm, "2 (GroupNorm)")])
def test_a_layer_that_mixes_the_whole_image_is_refused(kind, layer):
    with pytest.raises(UserError, match="cannot be trained on masked images") as refused:
        require_maskable(kind(), "theirs")
    assert layer in str(refused.value)


def test_the_check_of_a_backbone_leaves_no_trace():
    encoder = TinyEncoder()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    require_maskable(encoder, "ours")
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert encoder.training and not any(layer._forward_hooks for layer in encoder.modules())


@pytest.mark.parametrize("backbone", ["efficientnet_b0", "convnextv2_atto"])
@pytest.mark.integration
def test_networks_with_such_layers_are_refused(backbone):
    with pytest.raises(UserError, match=f"{backbone} cannot be trained on masked images"):
        require_maskable(build_encoder(backbone), backbone)


class TestDecoder:
    """Densified levels, joined."""

    @pytest.fixture(autouse=True)
    def narrow(self, monkeypatch):
        monkeypatch.setattr(hierarchical_decoder, "_WIDTHS", NARROW)

    def test_features_at_hidden_positions_are_replaced(self):
        encoder = TinyEncoder()
        decoder, visible = HierarchicalDecoder(encoder), VisibleCells(cells(8, 12), CPU)
        pyramid = [
            torch.randn(2, c, 64 // s, 96 // s) for c, s in zip(encoder.channels, (2, 4, 8, 16, 32), strict=True)
        ]
        others = [with_other_hidden_pixels(level, visible)[0] for level in pyramid]
        decoder.eval()
        image = decoder(pyramid, visible)
        assert image.shape == (2, 1, 64, 96)
        assert torch.equal(image, decoder(others, visible))

    @pytest.mark.parametrize("level", range(4))
    def test_every_level_and_its_token_reach_the_image(self, level):
        encoder = TinyEncoder()
        decoder, visible = HierarchicalDecoder(encoder).eval(), VisibleCells(cells(), CPU)
        pyramid = [
            torch.randn(2, c, 64 // s, 96 // s) for c, s in zip(encoder.channels, (2, 4, 8, 16, 32), strict=True)
        ]
        image = decoder(pyramid, visible)
        changed = list(pyramid)
        changed[-1 - level] = pyramid[-1 - level] + 1
        assert not torch.equal(image, decoder(changed, visible))
        with torch.no_grad():
            decoder.tokens[level] += 1
        assert not torch.equal(image, decoder(pyramid, visible))
