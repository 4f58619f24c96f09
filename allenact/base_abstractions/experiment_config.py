"""Experiments: one class describes what is learned, with which model, on which tasks and machines."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from allenact.base_abstractions.task import TaskSampler
from allenact.errors import ExperimentConfigError, did_you_mean
from allenact.utils.system import get_logger, warn_once

if TYPE_CHECKING:
    from allenact.base_abstractions.preprocessor import SensorPreprocessorGraph
    from allenact.pipeline.builder import Builder
    from allenact.pipeline.pipeline import TrainingPipeline
    from allenact.viz.suite import VizSuite

__all__ = [
    "Builder",
    "DeviceUnavailableError",
    "ExperimentConfig",
    "FrozenClassVariables",
    "MachineParams",
    "SensorPreprocessorGraph",
    "TaskSampler",
    "TrainingPipeline",
    "UndefinedTasksError",
    "VizSuite",
    "split_processes_onto_devices",
]

Device = torch.device | str | int


class DeviceUnavailableError(ExperimentConfigError, RuntimeError):
    """A device was asked for that this machine does not have. Also a RuntimeError, as in AllenAct."""


class UndefinedTasksError(ExperimentConfigError, NotImplementedError):
    """An experiment does not say what its task samplers are made of. Also a NotImplementedError, as in AllenAct."""


def split_processes_onto_devices(nprocesses: int, ndevices: int) -> list[int]:
    """Distributes task samplers over devices as evenly as possible, the first devices getting one more.

    Raises:
        ExperimentConfigError: there are fewer samplers than devices, but not none.
    """
    if 0 < nprocesses < ndevices:
        raise ExperimentConfigError(
            "every device needs a task sampler.",
            f"nprocesses={nprocesses} for {ndevices} devices",
            f"use at least {ndevices} samplers, or fewer devices.",
        )
    return [nprocesses // ndevices + (i < nprocesses % ndevices) for i in range(ndevices)]


class MachineParams:
    """What one mode (train, valid or test) runs on.

    Args:
        nprocesses: task samplers of each worker. Training has one worker for each entry, testing too;
            validation uses the first entry only, and 0 switches it off.
        devices: one for each worker, or one for all; None or empty: the CPU. -1 is the CPU, another integer a
            CUDA device, and strings and `torch.device`s are what torch makes of them.
        sensor_preprocessor_graph: the preprocessors, or a builder of them.
        sampler_devices: devices for the task samplers themselves, given like `devices`; None: their worker's.
        visualizer: a `VizSuite`, or a builder of one, for validation and testing.
        gpu_ids: (deprecated) former name of `devices`.
        local_worker_ids: the workers that run on this machine, for runs on several; None: all.

    Attributes:
        nprocesses, devices, sampler_devices: sequences with one entry for each worker; may be replaced
        afterwards.
        local_worker_ids: list of worker indices.

    Raises:
        ExperimentConfigError: the numbers do not fit together.
        DeviceUnavailableError: this machine lacks one of the devices.
    """

    def __init__(
        self,
        nprocesses: int | Sequence[int],
        devices: Device | Sequence[Device] | None = None,
        sensor_preprocessor_graph: SensorPreprocessorGraph | Builder[SensorPreprocessorGraph] | None = None,
        sampler_devices: Device | Sequence[Device] | None = None,
        visualizer: VizSuite | Builder[VizSuite] | None = None,
        gpu_ids: Device | Sequence[Device] | None = None,
        local_worker_ids: list[int] | None = None,
    ) -> None:
        if gpu_ids is not None:
            if devices is not None:
                raise ExperimentConfigError(
                    "devices are given twice.",
                    f"MachineParams(devices={devices}, gpu_ids={gpu_ids})",
                    "give devices only.",
                )
            warn_once("The argument gpu_ids of MachineParams is deprecated; use devices.")
            devices = gpu_ids
        self.nprocesses = _checked_nprocesses(nprocesses)
        self.devices = _checked_devices(devices, len(self.nprocesses), "devices")
        if len({device.type == "cpu" for device in self.devices}) > 1:
            raise ExperimentConfigError(
                "one mode cannot use the CPU and an accelerator.",
                f"devices={[str(device) for device in self.devices]}",
                "choose one kind of device for all workers of a mode.",
            )
        self.sampler_devices = (
            None
            if sampler_devices is None
            else _checked_devices(sampler_devices, len(self.nprocesses), "sampler_devices")
        )
        self._sensor_preprocessor_graph = sensor_preprocessor_graph
        self._visualizer = visualizer
        self.local_worker_ids: list[int] = []
        self.set_local_worker_ids(local_worker_ids)

    @classmethod
    def instance_from(cls, machine_params: MachineParams | Mapping[str, Any]) -> MachineParams:
        """Returns `machine_params` itself, or what a dict of its arguments describes."""
        if isinstance(machine_params, cls):
            return machine_params
        if not isinstance(machine_params, Mapping):
            raise ExperimentConfigError(
                "machine_params() returns neither a MachineParams nor a dict.",
                f"{machine_params!r}",
                "return MachineParams(nprocesses=..., devices=...).",
            )
        known = list(inspect.signature(cls).parameters)
        for key in machine_params:
            if key not in known:
                raise ExperimentConfigError(
                    f'machine parameters have no entry "{key}".',
                    f"the dict returned by machine_params(), with keys {list(machine_params)}",
                    did_you_mean(key, known) or f"known entries are {known}.",
                )
        return cls(**machine_params)

    def set_local_worker_ids(self, ids: Sequence[int] | None) -> None:
        """Chooses the workers that run on this machine; None chooses all."""
        ids = list(range(len(self.devices))) if ids is None else list(ids)
        if any(not 0 <= i < len(self.devices) for i in ids):
            raise ExperimentConfigError(
                "a worker index does not exist.",
                f"local_worker_ids={ids}, {len(self.devices)} devices",
                f"use indices from 0 to {len(self.devices) - 1}.",
            )
        self.local_worker_ids = ids

    @property
    def sensor_preprocessor_graph(self) -> SensorPreprocessorGraph | None:
        """The preprocessors, built on first use."""
        graph = _built(self._sensor_preprocessor_graph)
        self._sensor_preprocessor_graph = graph
        return graph

    @property
    def visualizer(self) -> VizSuite | None:
        """The visualisers, built on first use."""
        visualizer = _built(self._visualizer)
        self._visualizer = visualizer
        return visualizer

    def set_visualizer(self, viz: VizSuite | Builder[VizSuite]) -> None:
        """Replaces the visualisers unless they have been built."""
        if self._visualizer is None or _is_builder(self._visualizer):
            self._visualizer = viz
        else:
            get_logger().warning("The visualizer is already built; it is not replaced.")


def _is_builder(value: Any) -> bool:
    """Whether `value` is a `Builder`, told by its attributes so that the pipeline need not be imported."""
    return callable(value) and hasattr(value, "class_type")


def _built(value: Any) -> Any:
    return value() if _is_builder(value) else value


def _checked_nprocesses(nprocesses: int | Sequence[int]) -> Sequence[int]:
    counts = nprocesses if isinstance(nprocesses, Sequence) else (nprocesses,)
    if not counts or any(isinstance(n, bool) or not hasattr(n, "__index__") or n < 0 for n in counts):
        raise ExperimentConfigError(
            "the number of task samplers is not a number.",
            f"nprocesses={nprocesses!r} (machine_params)",
            "give one non-negative integer, or one for each worker.",
        )
    return counts


def _checked_devices(
    devices: Device | Sequence[Device] | None, num_workers: int, name: str
) -> tuple[torch.device, ...]:
    """Returns one device for each worker, all of them available."""
    if devices is None or (isinstance(devices, Sequence) and not devices):
        devices = "cpu"
    if isinstance(devices, int | str | torch.device):
        devices = [devices] * num_workers
    if len(devices) != num_workers:
        raise ExperimentConfigError(
            f"{len(devices)} {name} for {num_workers} workers.",
            f"{name}={list(devices)}, nprocesses with {num_workers} entries (machine_params)",
            f"give one device for each entry of nprocesses, or leave {name} out.",
        )
    checked = tuple(_as_device(device, name) for device in devices)
    for device in set(checked):
        _probe(device, name)
    return checked


def _as_device(device: Device, name: str) -> torch.device:
    if isinstance(device, int):
        return torch.device("cpu") if device < 0 else torch.device(f"cuda:{device}")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ExperimentConfigError(
            f'"{device}" is not a device.',
            f"{name} (machine_params)",
            'use -1, a CUDA index, "cpu" or "cuda:0".',
        ) from error


def _probe(device: torch.device, name: str) -> None:
    """Raises an error if `device` cannot be used, without initialising CUDA in this process."""
    if device.type == "cpu":
        return
    if device.type == "cuda":
        if (device.index or 0) < torch.cuda.device_count():
            return
        given = f"{name} (machine_params); torch sees {torch.cuda.device_count()} CUDA devices"
    else:
        try:
            torch.empty(1, device=device)
            return
        except Exception as error:  # torch raises whatever the back end does
            given = f"{name} (machine_params); torch says: {error}"
    raise DeviceUnavailableError(f'this machine has no device "{device}".', given, 'use another device, or "cpu".')


class FrozenClassVariables(abc.ABCMeta):
    """Metaclass of classes whose class attributes cannot be assigned after the class has been made.

    A run consists of several processes that import the class anew: an attribute changed on the class in one
    of them would be unchanged in the others. Attributes of instances are free, and travel with them.
    """

    def __setattr__(cls, name: str, value: Any) -> None:
        if name == "__abstractmethods__" or name.startswith("_abc_"):
            super().__setattr__(name, value)
            return
        raise RuntimeError(
            f'cannot assign the class attribute "{name}" of {cls.__name__}: other processes would not see '
            "it. Set it on the instance, or in the class body of a subclass."
        )


class ExperimentConfig(metaclass=FrozenClassVariables):
    """Describes an experiment.

    Methods may be class, static or instance methods; the framework calls them on an instance.
    """

    @abc.abstractmethod
    def tag(self) -> str:
        """Returns the experiment's name; outputs are filed under it."""

    @abc.abstractmethod
    def training_pipeline(self, **kwargs: Any) -> TrainingPipeline:
        """Returns what to train: losses, optimiser, stages. Called often; each call gives a new object."""

    @abc.abstractmethod
    def machine_params(self, mode: str = "train", **kwargs: Any) -> MachineParams | dict[str, Any]:
        """Returns what a mode runs on, as `MachineParams` or a dict of their arguments.

        Args:
            mode: "train", "valid" or "test".
            kwargs: what experiments pass to themselves, such as `machine_id`.
        """

    @abc.abstractmethod
    def create_model(self, **kwargs: Any) -> nn.Module:
        """Returns the actor-critic; gets `sensor_preprocessor_graph` as a keyword if there is one."""

    @abc.abstractmethod
    def make_sampler_fn(self, **kwargs: Any) -> TaskSampler:
        """Returns a task sampler, given what `*_task_sampler_args` returned and `mp_ctx`."""

    def train_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: list[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        """Returns the keywords for `make_sampler_fn` of one training sampler.

        Args:
            process_ind: index of the sampler among all samplers of all workers.
            total_processes: their number.
            devices: indices of the devices it may use, -1 for the CPU; None: any.
            seeds: one seed for each sampler.
            deterministic_cudnn: whether cuDNN should be deterministic.
        """
        raise _undefined_tasks(self, "train")

    def valid_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: list[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        """Returns the keywords for one validation sampler; see `train_task_sampler_args`."""
        raise _undefined_tasks(self, "valid")

    def test_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: list[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        """Returns the keywords for one test sampler; see `train_task_sampler_args`."""
        raise _undefined_tasks(self, "test")


def _undefined_tasks(config: ExperimentConfig, mode: str) -> UndefinedTasksError:
    """Returns the error to raise where an experiment has no tasks for a mode."""
    do = {
        "train": "define it: the keywords of make_sampler_fn for one sampler.",
        "valid": 'define it, or switch validation off: machine_params("valid") with nprocesses=0.',
        "test": "define it; to test on the validation tasks: return self.valid_task_sampler_args(...).",
    }
    name = type(config).__name__
    return UndefinedTasksError(f"{name} does not define {mode}_task_sampler_args.", f'mode "{mode}"', do[mode])


def __getattr__(name: str) -> Any:
    """Offers the names that experiments import from here and that are defined above this module's layer."""
    if name == "Builder":
        from allenact.pipeline.builder import Builder

        return Builder
    if name == "TrainingPipeline":
        from allenact.pipeline.pipeline import TrainingPipeline

        return TrainingPipeline
    if name == "SensorPreprocessorGraph":
        from allenact.base_abstractions.preprocessor import SensorPreprocessorGraph

        return SensorPreprocessorGraph
    if name == "VizSuite":
        from allenact.viz.suite import VizSuite

        return VizSuite
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
