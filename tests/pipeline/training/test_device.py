"""How networks compute on a device: precision, layout, memory."""

import pytest
import torch
from torch import nn

from pipeline.progress import silent
from pipeline.training.device import (
    COMPILE_FROM_STEPS,
    adam,
    autocast,
    configure_backends,
    maybe_compile,
    supports_bfloat16,
    to_device,
)

CPU = torch.device("cpu")


def product(precision):
    a = torch.linspace(1, 2, 64).reshape(8, 8)
    with autocast(precision, CPU):
        return a @ a


def test_float32_is_never_reduced():
    assert product("float32").dtype == torch.float32


@pytest.mark.skipif(not supports_bfloat16(CPU), reason="this CPU has no arithmetic for bfloat16")
def test_bfloat16_is_used_if_the_processor_has_it_and_weights_stay_float32():
    network = nn.Linear(8, 8)
    with autocast("bfloat16", CPU):
        y = network(torch.ones(1, 8))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert network.weight.dtype == network.weight.grad.dtype == torch.float32


def test_bfloat16_is_not_used_if_the_processor_lacks_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert product("bfloat16").dtype == torch.float32


def test_preparing_twice_changes_no_result():
    before = product("float32")
    configure_backends(CPU)
    configure_backends(CPU)
    assert torch.equal(product("float32"), before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_nothing_is_compiled_on_a_processor():
    network = nn.Linear(2, 2)
    assert maybe_compile(network, COMPILE_FROM_STEPS, silent) is network


def weights_after_steps(optimizer_of, gradients_lie, steps=4):
    """Of a convolution 3×3 and 1×1, an up-convolution and a bias, all channels last if they have channels."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(6, 5, 3), nn.Conv2d(5, 4, 1), nn.ConvTranspose2d(4, 3, 2))
    parameters = list(to_device(network, CPU).parameters())
    optimizer = optimizer_of(parameters)
    for _ in range(steps):
        for parameter in parameters:
            gradient = torch.randn(parameter.shape)
            parameter.grad = gradients_lie(gradient) if gradient.dim() == 4 else gradient
        optimizer.step()
    return parameters, optimizer


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_optimizer_is_adam_for_any_memory_layout_of_weights_and_gradients(layout):
    ours, _ = weights_after_steps(lambda p: adam(p, 0.1, (0.8, 0.99)), lambda g: g.contiguous(memory_format=layout))
    plain, _ = weights_after_steps(lambda p: torch.optim.Adam(p, 0.1, (0.8, 0.99), foreach=False), torch.clone)
    for mine, theirs in zip(ours, plain, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_what_the_optimizer_remembers_has_the_shape_and_the_layout_of_the_weights():
    parameters, optimizer = weights_after_steps(lambda p: adam(p, 0.1, (0.9, 0.999)), torch.clone)
    for parameter in parameters:
        for slot in ("exp_avg", "exp_avg_sq"):
            moment = optimizer.state[parameter][slot]
            assert (moment.shape, moment.stride()) == (parameter.shape, parameter.stride())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_a_forward_recorded_as_a_graph_gives_the_gradients_of_the_plain_one():
    device, said = torch.device("cuda"), []
    torch.manual_seed(0)
    network = to_device(nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1)), device)
    fast = maybe_compile(network, COMPILE_FROM_STEPS, said.append, as_graph=True)
    assert fast is not network, said
    for _ in range(4):  # the first ones warm up and record, the last one is a graph's
        x = torch.randn(4, 1, 32, 32, device=device)
        gradients = []
        for forward in (fast, network):
            network.zero_grad()
            forward(x).square().mean().backward()
            gradients.append([parameter.grad.clone() for parameter in network.parameters()])
        for one, other in zip(*gradients, strict=True):
            assert torch.allclose(one, other, rtol=1e-2, atol=1e-4)
