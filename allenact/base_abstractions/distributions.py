"""Distributions over actions: what a model returns and samples are drawn from."""

from __future__ import annotations

import abc
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.distributions import Categorical

if TYPE_CHECKING:
    from allenact.base_abstractions.teacher_forcing import AddBias, TeacherForcingDistr

__all__ = [
    "AddBias",
    "CategoricalDistr",
    "ConditionalDistr",
    "Distr",
    "SequentialDistr",
    "TeacherForcingDistr",
]


class Distr(abc.ABC):
    """A distribution over actions for T steps of N samplers."""

    @abc.abstractmethod
    def log_prob(self, actions: Any) -> Any:
        """Returns the log-probability of actions [T, N, ...]."""

    @abc.abstractmethod
    def entropy(self) -> Any:
        """Returns the entropy, [T, N, ...]."""

    @abc.abstractmethod
    def sample(self, sample_shape: Sequence[int] = ()) -> Any:
        """Returns a sample [*sample_shape, T, N, ...], without gradient."""

    def mode(self) -> Any:
        """Returns the most probable action, for deterministic agents."""
        raise NotImplementedError(f"{type(self).__name__} has no mode")


class CategoricalDistr(Categorical, Distr):
    """A choice among K actions, from `probs` or `logits` [T, N, ..., K]."""

    def mode(self) -> torch.Tensor:  # type: ignore[override]  # torch has a property of that name
        """Returns the most probable actions, [T, N, ...]."""
        return self.logits.argmax(dim=-1)  # [T, N, ...]

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Returns the log-probabilities of actions, in the shape of `value`.

        Args:
            value: [T, N, ...], or [T, N, ..., 1]; there is no broadcasting.

        Raises:
            NotImplementedError: `value` has another shape.
        """
        batch_shape = self.logits.shape[:-1]
        if value.shape == batch_shape:
            return super().log_prob(value)  # [T, N, ...]
        if value.shape == (*batch_shape, 1):
            return super().log_prob(value.squeeze(-1)).unsqueeze(-1)  # [T, N, ..., 1]
        raise NotImplementedError(
            f"actions of shape {tuple(value.shape)} do not fit logits of shape {tuple(self.logits.shape)}"
        )

    @cached_property
    def log_probs_tensor(self) -> torch.Tensor:
        """The log-probabilities of all actions, [T, N, ..., K]."""
        return torch.log_softmax(self.logits, dim=-1)  # [T, N, ..., K]

    @cached_property
    def probs_tensor(self) -> torch.Tensor:
        """The probabilities of all actions, [T, N, ..., K]."""
        return torch.softmax(self.logits, dim=-1)  # [T, N, ..., K]


class ConditionalDistr(Distr):
    """One group of a hierarchical action, whose distribution may depend on groups chosen before it.

    Args:
        distr_conditioned_on_input_fn_or_instance: a distribution, or a function that returns one given
            `args`, `kwargs` and the groups already chosen as keywords.
        action_group_name: the group's key in the action space.
        args: passed to the function.
        kwargs: passed to the function.

    Attributes:
        action_group_name: as given.
        distr: the group's distribution, None as long as it is not known.
    """

    def __init__(
        self,
        distr_conditioned_on_input_fn_or_instance: Callable[..., Distr] | Distr,
        action_group_name: str,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.action_group_name = action_group_name
        self.distr: Distr | None = None
        self._function: Callable[..., Distr] | None = None
        self._args, self._kwargs = args, kwargs
        if isinstance(distr_conditioned_on_input_fn_or_instance, Distr):
            self.distr = distr_conditioned_on_input_fn_or_instance
        else:
            self._function = distr_conditioned_on_input_fn_or_instance

    def condition_on_input(self, **ready_actions: Any) -> None:
        """Builds the distribution given the groups chosen so far, unless it is built already.

        Raises:
            ValueError: a group has the name of one of the function's own keywords.
        """
        if self._function is None or self.distr is not None:
            return
        collisions = self._kwargs.keys() & ready_actions.keys()
        if collisions:
            raise ValueError(f"groups named like keywords of the distribution's function: {sorted(collisions)}")
        self.distr = self._function(*self._args, **self._kwargs, **ready_actions)

    def reset(self) -> None:
        """Forgets the distribution, if there is a function to build another."""
        if self._function is not None:
            self.distr = None

    def _ready_distr(self) -> Distr:
        if self.distr is None:
            raise RuntimeError(
                f'the distribution of group "{self.action_group_name}" depends on other groups; call '
                "condition_on_input (SequentialDistr does it in sample, mode and log_prob)"
            )
        return self.distr

    def log_prob(self, actions: Any) -> Any:
        """Returns the log-probability of this group's actions."""
        return self._ready_distr().log_prob(actions)

    def entropy(self) -> Any:
        """Returns the entropy given the groups it was conditioned on."""
        return self._ready_distr().entropy()

    def sample(self, sample_shape: Sequence[int] = ()) -> OrderedDict[str, Any]:
        """Returns {group: sample}."""
        return OrderedDict([(self.action_group_name, self._ready_distr().sample(sample_shape))])

    def mode(self) -> OrderedDict[str, Any]:
        """Returns {group: most probable action}."""
        return OrderedDict([(self.action_group_name, self._ready_distr().mode())])


class SequentialDistr(Distr):
    """A hierarchical action: groups chosen one after another, each given all previous ones.

    `sample`, `mode` and `log_prob` condition the groups anew each time.

    Args:
        conditional_distrs: the groups, in order, with different names.
    """

    def __init__(self, *conditional_distrs: ConditionalDistr) -> None:
        names = [group.action_group_name for group in conditional_distrs]
        if len(set(names)) < len(names):
            raise ValueError(f"the groups of a sequential distribution need different names, not {names}")
        self.conditional_distrs = conditional_distrs

    def sample(self, sample_shape: Sequence[int] = ()) -> OrderedDict[str, Any]:
        """Returns group -> sample, in order."""
        return self.choose(lambda group: group.sample(sample_shape)[group.action_group_name])

    def mode(self) -> OrderedDict[str, Any]:
        """Returns group -> most probable action given the most probable actions of the previous groups."""
        return self.choose(lambda group: group.mode()[group.action_group_name])

    def choose(self, choose_one: Callable[[ConditionalDistr], Any]) -> OrderedDict[str, Any]:
        """Returns group -> `choose_one(group)`, with each group conditioned on the previous choices."""
        actions: OrderedDict[str, Any] = OrderedDict()
        for group in self.conditional_distrs:
            group.reset()
            group.condition_on_input(**actions)
            actions[group.action_group_name] = choose_one(group)
        return actions

    def log_prob(self, actions: Mapping[str, Any], return_dict: bool = False) -> Any:
        """Returns the log-probability of `actions`, or a dict with that of each group."""
        log_probs: OrderedDict[str, Any] = OrderedDict()

        def take_given(group: ConditionalDistr) -> Any:
            name = group.action_group_name
            log_probs[name] = group.log_prob(actions[name])
            return actions[name]

        self.choose(take_given)
        return log_probs if return_dict else sum(log_probs.values())

    def conditional_entropy(self) -> Any:
        """Returns the sum of the groups' entropies, given the actions they were last conditioned on."""
        return sum(group.entropy() for group in self.conditional_distrs)

    def entropy(self) -> Any:
        """Not available: it would need a sum over all actions of the earlier groups."""
        raise NotImplementedError(
            "a sequential distribution has no tractable entropy; use "
            'entropy_method_name="conditional_entropy" in the loss'
        )


def __getattr__(name: str) -> Any:
    """Offers the teacher-forcing distribution here too; imported on use because it is a `Distr` itself."""
    if name in ("AddBias", "TeacherForcingDistr"):
        from allenact.base_abstractions import teacher_forcing

        return getattr(teacher_forcing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
