"""Data-parallel training by processes that torchrun starts: joining them, and averaging their values.

A process by itself is a group of one, in which nothing is exchanged. `PretrainingSet.shard` divides the images.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector, vector_to_parameters


@dataclass(frozen=True)
class Group:
    """The rank of this process and the number of processes that train together."""

    rank: int
    world_size: int

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files and logs."""
        return self.rank == 0


@contextmanager
def process_group() -> Iterator[Group]:
    """Join the processes that torchrun started; without torchrun, a group of one.

    Gradients travel by NCCL between CUDA devices, one per process, and by Gloo on CPUs.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield group()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield group()
    finally:
        dist.destroy_process_group()


def group() -> Group:
    """The group that this process has joined."""
    if dist.is_available() and dist.is_initialized():
        return Group(dist.get_rank(), dist.get_world_size())
    return Group(0, 1)


def wrap_for_ddp(module: nn.Module) -> nn.Module:
    """`module` as DistributedDataParallel: a backward averages its gradients over the processes.

    It allows one backward per forward: a step that calls a network twice wraps both calls in one module.
    """
    if group().world_size == 1:
        return module
    device_ids = [torch.cuda.current_device()] if torch.cuda.is_available() else None
    return DistributedDataParallel(module, device_ids, broadcast_buffers=False)


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of every process's `values`, the same on all of them."""
    return sum_over_processes(values) / group().world_size


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of every process's `values`, the same on all of them."""
    if group().world_size > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def max_over_processes(value: Tensor) -> Tensor:
    """The maximum of every process's `value`, the same on all of them."""
    if group().world_size > 1:
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def gather_over_processes(values: Tensor) -> Tensor:
    """Every process's `values`, equally many in each, by rank, shape (world size, *values.shape).

    A gradient reaches this process's own `values` alone. If all processes compute the same loss of the result, its
    gradient is complete on each for its own part; averaging over the processes (`wrap_for_ddp`) divides it by their
    number.
    """
    if group().world_size == 1:
        return values.unsqueeze(0)
    parts = [torch.empty_like(values) for _ in range(group().world_size)]
    dist.all_gather(parts, values.detach().contiguous())
    parts[group().rank] = values
    return torch.stack(parts)


@torch.no_grad()
def average_statistics(*networks: nn.Module) -> None:
    """Average batch norm's running statistics over the processes, which then all hold the same networks."""
    if group().world_size == 1:
        return
    for network in networks:
        buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        vector_to_parameters(mean_over_processes(parameters_to_vector(buffers)), buffers)


def barrier() -> None:
    """Wait until every process has called this."""
    if group().world_size > 1:
        dist.barrier()
