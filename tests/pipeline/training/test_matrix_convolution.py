"""Convolutions by matrix products equal PyTorch's, whichever way each of the three results is computed."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.training import matrix_convolution
from pipeline.training.matrix_convolution import use_matrix_products

ALWAYS, NEVER = (0, 0), (10**9, 10**9)
SHAPES = [  # channels in and out, kernel, stride, padding, height, width
    (5, 7, 3, 2, 1, 6, 9),
    (4, 6, 1, 2, 0, 5, 7),
    (3, 4, 7, 2, 3, 12, 10),
    (4, 4, 3, 1, 1, 2, 3),
    (8, 3, 1, 1, 0, 3, 4),
    (4, 5, 2, 3, 1, 8, 9),
    (2, 3, 1, 2, 1, 4, 5),
]


def results(layer: nn.Module, x_NCHW: Tensor) -> list[Tensor]:
    """Output, gradients of input, weights and bias for a fixed gradient of the output."""
    x_NCHW = x_NCHW.clone().requires_grad_()
    layer.zero_grad()
    output = layer(x_NCHW)
    output.backward(torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape))
    gradients = [parameter.grad for parameter in layer.parameters()]
    return [found for found in (output.detach(), x_NCHW.grad, *gradients) if found is not None]


def pair(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[nn.Conv2d, nn.Conv2d, Tensor]:
    """A layer, its copy with matrix products, and an input."""
    channels, outputs, kernel, stride, padding, height, width = shape
    torch.manual_seed(0)
    plain = nn.Conv2d(channels, outputs, kernel, stride, padding).to(dtype)
    ours = copy.deepcopy(plain)
    use_matrix_products(ours)
    return plain, ours, torch.randn(2, channels, height, width, dtype=dtype)


@pytest.mark.parametrize("least", [ALWAYS, NEVER], ids=["product", "oneDNN"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradients_are_those_of_pytorch(
    shape: tuple[int, ...], least: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_convolution, "_PRODUCT", least)
    plain, ours, x_NCHW = pair(*shape)
    found, expected = results(ours, x_NCHW), results(plain, x_NCHW)
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_only_what_is_needed_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_convolution, "_PRODUCT", ALWAYS)
    plain, ours, x_NCHW = pair(*SHAPES[0])
    ours.weight.requires_grad_(False)
    found = results(ours, x_NCHW)
    torch.testing.assert_close(found[1], results(plain, x_NCHW)[1])
    assert ours.weight.grad is None
    ours.weight.requires_grad_(True)
    ours(x_NCHW).sum().backward()
    assert ours.weight.grad is not None


def test_bfloat16_rounds_no_more_than_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float32 both ways have the same error, that of the operands' rounding."""
    monkeypatch.setattr(matrix_convolution, "_PRODUCT", ALWAYS)
    monkeypatch.setattr(matrix_convolution, "_WEIGHT_GRADIENT_BF16", ALWAYS)
    plain, ours, x_NCHW = pair(64, 32, 3, 1, 1, 2, 3, dtype=torch.float32)
    exact = results(plain, x_NCHW)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, found = results(plain, x_NCHW), results(ours, x_NCHW)
    for one, other, true in zip(found, rounded, exact, strict=True):
        assert one.dtype == other.dtype
        error, allowed = ((got.float() - true).norm() / true.norm() for got in (one, other))
        assert error <= 1.5 * allowed + 1e-3
    assert found[0].dtype == torch.bfloat16
    assert found[2].dtype == torch.float32


@pytest.mark.parametrize(
    ("weights", "positions", "kernel", "faster"),
    [((10, 60), 6, 1, True), ((10, 59), 6, 1, False), ((20, 60), 6, 3, False), ((1000, 12), 6, 3, True)],
)
def test_a_product_needs_many_weights_for_each_position(
    weights: tuple[int, int], positions: int, kernel: int, faster: bool
) -> None:
    weight = torch.empty(*weights, kernel, kernel)
    assert matrix_convolution._is_faster((100, 2000), weight, (1, 1, positions, weights[0])) == faster


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[4], (4, 3, 3, 1, 1, 1, 1)], ids=str)
def test_an_activation_may_change_the_output_in_place(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_convolution, "_PRODUCT", ALWAYS)
    plain, ours, x_NCHW = pair(*shape)
    found, expected = (results(nn.Sequential(layer, nn.SiLU(inplace=True)), x_NCHW) for layer in (ours, plain))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_evaluation_is_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_convolution, "_PRODUCT", ALWAYS)
    plain, ours, x_NCHW = pair(*SHAPES[0], dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(ours(x_NCHW), plain(x_NCHW))


def test_other_convolutions_stay_as_they_are() -> None:
    others = nn.ModuleList(
        [
            nn.Conv2d(4, 4, 3, groups=2),
            nn.Conv2d(4, 4, 3, dilation=2),
            nn.Conv2d(4, 4, (1, 3)),
            nn.Conv2d(4, 4, 3, stride=(1, 2)),
            nn.Conv2d(4, 4, 3, padding="same"),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
            nn.ConvTranspose2d(4, 4, 3),
            spectral_norm(nn.Conv2d(4, 4, 3)),
        ]
    )
    before = [type(layer) for layer in others]
    use_matrix_products(others)
    assert [type(layer) for layer in others] == before


def test_the_names_and_the_memory_of_the_weights_stay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    use_matrix_products(network)
    assert {name: tensor.data_ptr() for name, tensor in network.state_dict().items()} == before
