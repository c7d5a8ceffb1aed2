"""The CPU speed-ups: two change no bit of the weights, and `0` switches all of them off."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline.training import cpu_tuning
from pipeline.training.device import adam, configure_backends, to_device

CPU = torch.device("cpu")


def trained_weights() -> dict[str, torch.Tensor]:
    """Of a channels-last network with batch norm after a few steps."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 2), nn.Conv2d(4, 2, 1)]
    network = to_device(nn.Sequential(*layers), CPU)
    configure_backends(CPU)
    optimizer = adam(network.parameters(), 0.01, (0.9, 0.999))
    for _ in range(5):
        optimizer.zero_grad()
        network(torch.randn(4, 3, 9, 11)).square().mean().backward()
        optimizer.step()
    return network.state_dict()


def test_the_switch_changes_no_bit_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = trained_weights()
    monkeypatch.setenv(cpu_tuning.SWITCH, "0")
    plain = trained_weights()
    assert all(torch.equal(plain[name], tensor) for name, tensor in tuned.items())
    assert any(
        tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tuned.values() if tensor.dim() == 4
    )


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
@pytest.mark.parametrize(("value", "tuned"), [(None, True), ("1", True), ("0", False)])
def test_the_switch_covers_the_optimizer_malloc_and_convolutions(
    value: str | None, tuned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    libc = SimpleNamespace(mallopt=lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(cpu_tuning.ctypes, "CDLL", lambda _: libc)
    monkeypatch.setattr(cpu_tuning, "_raise_malloc_thresholds", cpu_tuning._raise_malloc_thresholds.__wrapped__)
    monkeypatch.delenv(cpu_tuning.SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(cpu_tuning.SWITCH, value)
    configure_backends(CPU)
    assert len(calls) == (2 if tuned else 0)
    assert (type(to_device(nn.Conv2d(1, 1, 1), CPU)) is nn.Conv2d) == (not tuned)
    optimizer = adam([nn.Parameter(torch.zeros(1))], 0.1, (0.9, 0.999))
    assert (type(optimizer) is torch.optim.Adam) == (not tuned)
