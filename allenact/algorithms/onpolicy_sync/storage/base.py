"""What a storage of experience has to offer.

Order of calls: `to`, `set_partition` and `initialize` when the storage comes into use (`initialize` again when
all episodes are restarted); then, for each rollout, `add` after each environment step, `before_updates`, the
updates, `after_updates`. Shapes: T rollout steps, N samplers, A size of a flattened action.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from allenact.base_abstractions.misc import Memory, ObservationType


class ExperienceStorage(abc.ABC):
    """Keeps experience. Its data reach the losses through one of the two mixins below."""

    @abc.abstractmethod
    def initialize(self, *, observations: ObservationType, **kwargs: Any) -> None:
        """Forgets everything and takes the first observations.

        Args:
            observations: leaves [N, O...]; empty if no storage of the stage collects rollouts.
            **kwargs: `num_samplers` (int), `recurrent_memory_specification` (the model's) and `action_space`
                (the model's).
        """

    @abc.abstractmethod
    def add(
        self,
        observations: ObservationType,
        memory: Memory | None,
        actions: torch.Tensor,
        action_log_probs: torch.Tensor,
        value_preds: torch.Tensor,
        rewards: torch.Tensor,
        masks: torch.Tensor,
    ) -> None:
        """Takes one environment step of all samplers.

        An optional argument `truncation_values`, [N, 1], is the value of the last observation where a limit cut the
        episode, else 0; it is given where `bootstrap_truncated` is set, and needed there by the rollout storage.

        Args:
            observations: leaves [N, O...], seen *after* the action; where the episode ended, the first ones of
                the next.
            memory: the model's state after it processed the previous observation.
            actions: [N, A] flattened.
            action_log_probs: [N, ...] as the distribution gives them.
            value_preds: [N, 1] value of the previous observation.
            rewards: [N, 1].
            masks: [N, 1] 0 where `observations` are the first of an episode, else 1.
        """

    def before_updates(self, **kwargs: Any) -> None:  # noqa: B027 - optional
        """Prepares the data at the end of a rollout.

        Args:
            **kwargs: `next_value` ([1, N, 1]; None without rollouts), `use_gae`, `gamma`, `tau` (lambda of
                the generalised advantage estimates) and `adv_stats_callback` (advantages [T, N, 1] -> `mean`
                and `std` over all workers).
        """

    def after_updates(self, **kwargs: Any) -> None:  # noqa: B027 - optional
        """Makes room for the next rollout."""

    @abc.abstractmethod
    def to(self, device: torch.device) -> None:
        """Moves the data to a device, where later data will be kept too."""

    @abc.abstractmethod
    def set_partition(self, index: int, num_parts: int) -> None:
        """Restricts the data to part `index` of `num_parts`, one part for each training worker."""

    @property
    @abc.abstractmethod
    def total_experiences(self) -> int:
        """Rows of experience that this worker has gained so far."""

    def state_dict(self) -> dict[str, Any] | None:
        """Returns what an exact continuation between two rollouts needs; None: nothing, or not supported."""
        return None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned. Called after `initialize`."""
        raise NotImplementedError(f"{type(self).__name__} cannot be restored")


class RolloutStorage(ExperienceStorage):
    """Collects the rollouts of the current policy; tells the policy what it needs to act."""

    @abc.abstractmethod
    def agent_input_for_next_step(self) -> dict[str, Any]:
        """Returns the arguments of the model's next forward pass.

        Returns:
            `observations` (leaves [1, N, O...]), `memory` (without a step dimension), `prev_actions` (as the
            action space has them, [1, N, ...]) and `masks` ([1, N, 1]).
        """

    @abc.abstractmethod
    def sampler_select(self, keep_list: Sequence[int]) -> None:
        """Forgets all samplers except `keep_list`, when the others have no tasks left."""

    def observations_and_returns(self) -> tuple[ObservationType, torch.Tensor] | None:
        """Returns what a model's `update_statistics` takes; None where that is not supported, which gives a warning.

        Called after the updates with a rollout, before `after_updates`.

        Returns:
            The observations of the rollout, leaves [T, N, O...], and the targets of its values, [T, N, 1].
        """
        return None

    def reserve(self, num_steps: int) -> None:
        """Announces the length of the rollouts, so that memory can be set aside."""

    def load_state_dict(self, state: Mapping[str, Any], restarted: Sequence[int] = ()) -> None:
        """Restores what `state_dict` returned. Called after `initialize`.

        Args:
            state: what `state_dict` returned.
            restarted: samplers that could not be restored and begin a new episode instead.
        """
        super().load_state_dict(state)


class MiniBatchStorageMixin(abc.ABC):
    """A storage whose data are cut into mini-batches on each pass."""

    @abc.abstractmethod
    def batched_experience_generator(self, num_mini_batch: int) -> Iterator[dict[str, Any]]:
        """Yields `num_mini_batch` batches that together hold all data once."""


class StreamingStorageMixin(abc.ABC):
    """A storage that hands out one batch after the other, in a fixed order."""

    @abc.abstractmethod
    def next_batch(self) -> dict[str, Any]:
        """Returns the next batch.

        Raises:
            EOFError: there are no more data.
        """

    @abc.abstractmethod
    def reset_stream(self) -> None:
        """Goes back to the first batch."""

    @abc.abstractmethod
    def empty(self) -> bool:
        """Whether there would be no data even after `reset_stream`."""
