"""Sensors that tell what an expert would do, for imitation and teacher forcing.

An expert sensor returns a *flattened* vector (`allenact.utils.spaces_utils.flatten`) although its observation
space is nested: unflatten it with `sensor.observation_space` to read it. For a plain discrete action space
the vector is `[action, success]`, int64.
"""

from __future__ import annotations

import abc
from collections import OrderedDict
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from allenact.base_abstractions.misc import EnvType, SubTaskType
from allenact.base_abstractions.sensor import Sensor
from allenact.errors import ExperimentConfigError
from allenact.utils import spaces_utils
from allenact.utils.system import warn_once


class AbstractExpertSensor(Sensor[EnvType, SubTaskType], abc.ABC):
    """What an expert would do, and whether it knows.

    Args:
        action_space: the agent's action space; an integer means that many discrete actions.
        uuid: the sensor's name.
        expert_args: keywords for the task's expert.
        nactions: (deprecated) number of discrete actions.
        use_dict_as_groups: whether the entries of a dict action space are groups asked for one by one, with a
            success flag each.
        kwargs: ignored, as in `Sensor`.

    Attributes:
        action_space: as given, as a space.
        use_groups: whether there are groups.
        group_spaces: group -> space of its actions; one dummy group if there are none.
        observation_space: dict with `ACTION_POLICY_LABEL` and `EXPERT_SUCCESS_LABEL`; with groups, a dict of
            those.

    Raises:
        ExperimentConfigError: the action space is missing or given twice, or `expert_args` has a reserved
            key.
    """

    ACTION_POLICY_LABEL = "action_or_policy"
    EXPERT_SUCCESS_LABEL = "expert_success"
    _NO_GROUPS_LABEL = "__dummy_expert_group__"

    def __init__(
        self,
        action_space: gym.Space | int | None = None,
        uuid: str = "expert_sensor_type_uuid",
        expert_args: dict[str, Any] | None = None,
        nactions: int | None = None,
        use_dict_as_groups: bool = True,
        **kwargs: Any,
    ) -> None:
        self.action_space = self._checked_action_space(action_space, nactions, uuid)
        self.use_groups = use_dict_as_groups and spaces_utils.space_kind(self.action_space) == "Dict"
        self.group_spaces: OrderedDict[str, Any] = (
            OrderedDict(self.action_space.spaces)
            if self.use_groups
            else OrderedDict([(self._NO_GROUPS_LABEL, self.action_space)])
        )
        self.expert_args: dict[str, Any] = expert_args or {}
        if "expert_sensor_group_name" in self.expert_args:
            raise ExperimentConfigError(
                'the key "expert_sensor_group_name" of an expert sensor\'s expert_args is reserved.',
                f'sensor "{uuid}", expert_args={self.expert_args}',
                "rename it; the sensor passes the group's name to the expert itself.",
            )
        space = self.flagged_space(self.action_space, use_dict_as_groups=use_dict_as_groups)
        super().__init__(uuid=uuid, observation_space=space)
        zeros = torch.zeros(spaces_utils.flatdim(space))  # [A]
        # Through the space and back, so that an unknown action has the type of a known one.
        self._unknown = spaces_utils.flatten(space, spaces_utils.unflatten(space, zeros)).numpy()  # [A]

    @staticmethod
    def _checked_action_space(action_space: Any, nactions: int | None, uuid: str) -> Any:
        if (action_space is None) == (nactions is None):
            raise ExperimentConfigError(
                "an expert sensor needs the agent's action space, once.",
                f'sensor "{uuid}", action_space={action_space}, nactions={nactions}',
                "give action_space, and not nactions.",
            )
        if nactions is not None:
            warn_once("The argument nactions of expert sensors is deprecated; use action_space.")
            action_space = nactions
        return gym.spaces.Discrete(action_space) if isinstance(action_space, int) else action_space

    @classmethod
    @abc.abstractmethod
    def flagged_group_space(cls, group_space: Any) -> gym.spaces.Dict:
        """Returns the space of what is known about one group with that action space."""

    @classmethod
    def flagged_space(cls, action_space: Any, use_dict_as_groups: bool = True) -> gym.spaces.Dict:
        """Returns the sensor's observation space for that action space."""
        if not use_dict_as_groups or spaces_utils.space_kind(action_space) != "Dict":
            return cls.flagged_group_space(action_space)
        return gym.spaces.Dict(
            OrderedDict((name, cls.flagged_group_space(space)) for name, space in action_space.spaces.items())
        )

    @classmethod
    def _flagged(cls, space: Any) -> gym.spaces.Dict:
        return gym.spaces.Dict(
            OrderedDict(
                [
                    (cls.ACTION_POLICY_LABEL, spaces_utils.as_gymnasium_space(space)),
                    (cls.EXPERT_SUCCESS_LABEL, gym.spaces.Discrete(2)),
                ]
            )
        )

    @abc.abstractmethod
    def query_expert(self, task: Any, expert_sensor_group_name: str | None) -> tuple[Any, bool]:
        """Asks the expert.

        Args:
            task: the current task.
            expert_sensor_group_name: the group that is asked for; a dummy name if there are no groups.

        Returns:
            The action or policy (a point of its space, in NumPy or plain Python), and whether the expert knew
            it.
        """

    def get_observation(self, env: EnvType, task: SubTaskType | None, *args: Any, **kwargs: Any) -> np.ndarray:
        """Returns what the expert would do now, flattened; zeros once the task is over."""
        if task is None or task.is_done():
            return self._unknown.copy()
        if not self.use_groups:
            return self._query(task, self._NO_GROUPS_LABEL, self.observation_space)
        spaces = self.observation_space.spaces  # type: ignore[attr-defined]  # a dict of groups
        return np.concatenate([self._query(task, name, space) for name, space in spaces.items()])  # [A]

    def _query(self, task: Any, group: str, space: Any) -> np.ndarray:
        """Returns the flattened answer about one group."""
        answer, success = self.query_expert(task, group)
        if answer is None:
            return np.zeros(spaces_utils.flatdim(space), dtype=self._unknown.dtype)  # [A of the group]
        action_space = space.spaces[self.ACTION_POLICY_LABEL]
        if spaces_utils.space_kind(action_space) == "Discrete":
            return np.array([answer, success], dtype=self._unknown.dtype)  # [2]
        flat = spaces_utils.flatten(action_space, spaces_utils.torch_point(action_space, answer)).numpy()
        return np.append(flat, success).astype(self._unknown.dtype)  # [A of the group]


class AbstractExpertActionSensor(AbstractExpertSensor[EnvType, SubTaskType], abc.ABC):
    """The action an expert would take; arguments as for `AbstractExpertSensor`."""

    def __init__(
        self,
        action_space: gym.Space | int | None = None,
        uuid: str = "expert_action",
        expert_args: dict[str, Any] | None = None,
        nactions: int | None = None,
        use_dict_as_groups: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(action_space, uuid, expert_args, nactions, use_dict_as_groups, **kwargs)

    @classmethod
    def flagged_group_space(cls, group_space: Any) -> gym.spaces.Dict:
        """Returns a dict space of an action and a flag."""
        return cls._flagged(group_space)


class AbstractExpertPolicySensor(AbstractExpertSensor[EnvType, SubTaskType], abc.ABC):
    """The policy an expert would follow; arguments as for `AbstractExpertSensor`."""

    def __init__(
        self,
        action_space: gym.Space | int | None = None,
        uuid: str = "expert_policy",
        expert_args: dict[str, Any] | None = None,
        nactions: int | None = None,
        use_dict_as_groups: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(action_space, uuid, expert_args, nactions, use_dict_as_groups, **kwargs)

    @classmethod
    def flagged_group_space(cls, group_space: Any) -> gym.spaces.Dict:
        """Returns a dict space of a policy (`spaces_utils.policy_space`) and a flag."""
        return cls._flagged(spaces_utils.policy_space(group_space))


class _TaskExpert:
    """Asks the task itself, through `Task.query_expert`."""

    expert_args: dict[str, Any]

    def query_expert(self, task: Any, expert_sensor_group_name: str | None) -> tuple[Any, bool]:
        """Returns the answer of `task.query_expert(**expert_args, expert_sensor_group_name=...)`."""
        return task.query_expert(**self.expert_args, expert_sensor_group_name=expert_sensor_group_name)


class ExpertActionSensor(_TaskExpert, AbstractExpertActionSensor[EnvType, SubTaskType]):
    """The action that `task.query_expert` returns."""


class ExpertPolicySensor(_TaskExpert, AbstractExpertPolicySensor[EnvType, SubTaskType]):
    """The policy that `task.query_expert` returns."""
