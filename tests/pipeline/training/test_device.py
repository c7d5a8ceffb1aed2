"""How networks compute on a device: precision, layout, memory.

Belongs here: what the choice depends on. Not here: speed (benchmarks).
"""

import pytest
import torch
from torch import nn

from pipeline.progress import silent
from pipeline.training.device import COMPILE_FROM_STEPS, compiled, computing_in, multiplies_bfloat16, prepare

CPU = torch.device("cpu")


def product(precision):
    a = torch.linspace(1, 2, 64).reshape(8, 8)
    with computing_in(precision, CPU):
        return a @ a


def test_float32_is_never_reduced():
    assert product("float32").dtype == torch.float32


@pytest.mark.skipif(not multiplies_bfloat16(CPU), reason="this CPU has no arithmetic for bfloat16")
def test_bfloat16_is_taken_where_the_processor_has_it_and_weights_stay_float32():
    network = nn.Linear(8, 8)
    with computing_in("bfloat16", CPU):
        y = network(torch.ones(1, 8))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert network.weight.dtype == network.weight.grad.dtype == torch.float32


def test_bfloat16_is_left_where_the_processor_lacks_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert product("bfloat16").dtype == torch.float32


def test_preparing_twice_changes_no_result():
    before = product("float32")
    prepare(CPU)
    prepare(CPU)
    assert torch.equal(product("float32"), before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_nothing_is_compiled_on_a_processor():
    network = nn.Linear(2, 2)
    assert compiled(network, COMPILE_FROM_STEPS, silent) is network
