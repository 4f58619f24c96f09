"""How many workers and task samplers an experiment asks for in each mode, checked."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from allenact.base_abstractions.experiment_config import MachineParams
from allenact.errors import ExperimentConfigError

if TYPE_CHECKING:
    from allenact.base_abstractions.experiment_config import ExperimentConfig


def machine_params_of(config: ExperimentConfig, mode: str, machine_id: int | None = None) -> MachineParams:
    """Returns the experiment's machine parameters for `mode`, which it may also give as a dict.

    Args:
        config: the experiment.
        mode: "train", "valid" or "test".
        machine_id: index of this machine. Experiments that take it as a keyword choose by it, also where it is 0, which
            workers run here; it is given for training only, the one mode that can have several machines.

    Raises:
        ExperimentConfigError: this is not the first machine, and the experiment does not take `machine_id`.
    """
    signature = inspect.signature(config.machine_params)
    takes_it = any(
        parameter.name == "machine_id" or parameter.kind is parameter.VAR_KEYWORD
        for parameter in signature.parameters.values()
    )
    is_given = machine_id is not None and mode == "train"
    if is_given and machine_id != 0 and not takes_it:
        raise ExperimentConfigError(
            "the experiment is for one machine only: its machine_params() does not take machine_id.",
            f"--machine_id {machine_id}, {type(config).__name__}.machine_params{signature}",
            "take machine_id, and choose the workers of that machine with MachineParams.set_local_worker_ids(...).",
        )
    extra = {"machine_id": machine_id} if is_given and takes_it else {}
    return MachineParams.instance_from(config.machine_params(mode, **extra))


def require_samplers(config: ExperimentConfig, mode: str, machine_id: int | None = None) -> MachineParams:
    """Returns the machine parameters of `mode`, in which every worker must have a task sampler.

    Raises:
        ExperimentConfigError: there is no worker, or one without samplers.
    """
    params = machine_params_of(config, mode, machine_id)
    counts = [int(count) for count in params.nprocesses]
    if min(counts, default=0) < 1:
        raise ExperimentConfigError(
            f"{mode} needs at least one task sampler for each worker.",
            f'nprocesses={counts} (machine_params, mode "{mode}")',
            "set nprocesses to 1 or more.",
        )
    return params
