"""Preprocessors: observations computed from other observations, once per step and before they are stored."""

from __future__ import annotations

import abc
import graphlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import torch

from allenact.errors import ExperimentConfigError, did_you_mean
from allenact.utils.spaces_utils import as_gymnasium_space


class Preprocessor(abc.ABC):
    """Computes one observation from others.

    Args:
        input_uuids: the observations it needs.
        output_uuid: the name of what it computes.
        observation_space: the space of what it computes, for one sampler.
        kwargs: ignored, because of `super().__init__(**prepare_locals_for_super(locals()))`.

    Attributes:
        uuid: the output's name.
    """

    def __init__(self, input_uuids: list[str], output_uuid: str, observation_space: gym.Space, **kwargs: Any) -> None:
        self.uuid = output_uuid
        self.input_uuids = input_uuids
        self.observation_space = observation_space

    @abc.abstractmethod
    def process(self, obs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Returns the new observation, leaves [N, ...], for observations with leaves [N, ...]."""

    @abc.abstractmethod
    def to(self, device: torch.device) -> Preprocessor:
        """Moves the preprocessor to `device` and returns it."""


class SensorPreprocessorGraph:
    """Preprocessors that feed on sensors and on each other.

    Args:
        source_observation_spaces: the sensors' spaces.
        preprocessors: preprocessors or builders of them, in any order.
        additional_output_uuids: observations to expose although a preprocessor consumes them.

    Attributes:
        preprocessors: uuid -> preprocessor, in the order given.
        compute_order: uuids of the preprocessors, each after all it depends on.
        observation_spaces: what comes out: everything nothing consumes, and the additional outputs.
        device: where the preprocessors are.

    Raises:
        ExperimentConfigError: a name is used twice or does not exist, or the preprocessors need each other.
    """

    preprocessors: dict[str, Preprocessor]
    compute_order: list[str]
    observation_spaces: gym.spaces.Dict

    def __init__(
        self,
        source_observation_spaces: gym.spaces.Dict,
        preprocessors: Sequence[Preprocessor | Callable[[], Preprocessor]],
        additional_output_uuids: Sequence[str] = (),
    ) -> None:
        self.device = torch.device("cpu")
        built = [p if isinstance(p, Preprocessor) else p() for p in preprocessors]
        self.preprocessors = {preprocessor.uuid: preprocessor for preprocessor in built}
        spaces = {**source_observation_spaces.spaces, **{p.uuid: p.observation_space for p in built}}
        if len(spaces) < len(source_observation_spaces.spaces) + len(built):
            raise ExperimentConfigError(
                "two observations have the same name.",
                f"sensors {list(source_observation_spaces.spaces)}, preprocessors {[p.uuid for p in built]}",
                "give each sensor and preprocessor its own uuid.",
            )
        for preprocessor in built:
            _check_known(preprocessor.input_uuids, spaces, f'preprocessor "{preprocessor.uuid}"')
        _check_known(additional_output_uuids, spaces, "additional_output_uuids")

        self.compute_order = self._topological_order()
        consumed = {uuid for p in built for uuid in p.input_uuids} - set(additional_output_uuids)
        self.observation_spaces = gym.spaces.Dict(
            OrderedDict((k, as_gymnasium_space(space)) for k, space in spaces.items() if k not in consumed)
        )

    def _topological_order(self) -> list[str]:
        graph = {uuid: p.input_uuids for uuid, p in self.preprocessors.items()}
        try:
            order = list(graphlib.TopologicalSorter(graph).static_order())
        except graphlib.CycleError as error:
            raise ExperimentConfigError(
                "preprocessors need each other's output.", " <- ".join(error.args[1]), "break the cycle."
            ) from None
        return [uuid for uuid in order if uuid in self.preprocessors]

    def get(self, uuid: str) -> Preprocessor:
        """Returns the preprocessor with that uuid."""
        return self.preprocessors[uuid]

    def to(self, device: torch.device) -> SensorPreprocessorGraph:
        """Moves all preprocessors to `device` and returns the graph."""
        self.device = device
        for preprocessor in self.preprocessors.values():
            preprocessor.to(device)
        return self

    def get_observations(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Computes what is missing, and returns what is exposed.

        Args:
            obs: batched observations of one step, leaves [N, ...]; what is computed is added to it.

        Returns:
            uuid -> observation for the uuids in `observation_spaces`.
        """
        for uuid in self.compute_order:
            if uuid not in obs:
                obs[uuid] = self.preprocessors[uuid].process(obs)
        return {uuid: obs[uuid] for uuid in self.observation_spaces.spaces}


def _check_known(uuids: Sequence[str], spaces: Mapping[str, Any], where: str) -> None:
    for uuid in uuids:
        if uuid not in spaces:
            raise ExperimentConfigError(
                f'there is no observation called "{uuid}".',
                f"{where}; known are {list(spaces)}",
                did_you_mean(uuid, spaces) or "add the sensor or preprocessor, or correct the name.",
            )


class _Removed:
    """A class that AllenAct removed and still names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise DeprecationWarning(
            f"{type(self).__name__} no longer exists: use SensorPreprocessorGraph, and give its "
            "observation_spaces to the model"
        )


class PreprocessorGraph(_Removed):
    """Removed: use `SensorPreprocessorGraph`."""


class ObservationSet(_Removed):
    """Removed: use `SensorPreprocessorGraph`."""
