"""Data-parallel training: sums and gradients over the training workers. With one worker every call returns at once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed as dist

from allenact.algorithms.onpolicy_sync.returns import advantage_stats
from allenact.errors import ExperimentConfigError
from allenact.utils.system import find_free_port

_TIMEOUT = timedelta(minutes=30)


class WorkerGroup:
    """The training workers of a run.

    Args:
        rank: index of this worker.
        size: number of workers; with one, every method returns at once.
        address: `ip:port` of worker 0, where the workers meet.
        device: the worker's device; it decides between NCCL and Gloo.
    """

    def __init__(self, rank: int = 0, size: int = 1, address: str = "", device: torch.device | None = None) -> None:
        self.rank = rank
        self.size = size
        self.device = device or torch.device("cpu")
        if size > 1:
            dist.init_process_group(
                backend="nccl" if self.device.type == "cuda" else "gloo",
                init_method=f"tcp://{address}",
                rank=rank,
                world_size=size,
                timeout=_TIMEOUT,
            )

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the sum of `values` over the workers."""
        if self.size == 1:
            return values
        total = values.detach().clone().to(self.device)
        dist.all_reduce(total)
        return total.to(values.device)

    def sum_int(self, value: int) -> int:
        """Returns the sum of a whole number over the workers."""
        return value if self.size == 1 else int(self.sum(torch.tensor(value, dtype=torch.int64)))

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Adds up the workers' gradients in place; a parameter without gradient contributes zeros."""
        if self.size == 1:
            return
        parameters = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])  # [all parameters]
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def advantage_stats(self, advantages: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns mean and unbiased standard deviation of the advantages of all workers.

        Args:
            advantages: [T, N, 1] of this worker.
        """
        return advantage_stats(advantages, self.sum)

    def close(self) -> None:
        """Leaves the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def meeting_point(ip_and_port: str, machine_id: int) -> str:
    """Returns `ip:port` where the workers meet; port 0 is replaced by a free one.

    Raises:
        ExperimentConfigError: it is no address, or another machine than the first is to choose the port.
    """
    address, _, port = ip_and_port.rpartition(":")
    given = f"--distributed_ip_and_port {ip_and_port} --machine_id {machine_id}"
    if not address or not port.isdigit():
        raise ExperimentConfigError("workers on several machines need an address to meet.", given, "write IP:PORT.")
    if port != "0":
        return ip_and_port
    if machine_id != 0:
        raise ExperimentConfigError(
            "only machine 0 can choose the port where the workers meet.",
            given,
            "give all machines the same address and port.",
        )
    return f"{address}:{find_free_port(address)}"
