"""Imitation of recorded BabyAI demonstrations: the file format, the stream of batches, the loss.

A demonstration is a tuple (mission, images, directions, actions): the mission's text; the agent's views
[L, v, v, 3] uint8, usually as an array pickled and compressed with Blosc; the agent's directions and the
expert's actions, L of each. A data file is a pickled list of demonstrations.
"""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch

from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage, StreamingStorageMixin
from allenact.base_abstractions.misc import GenericAbstractLoss, LossOutput, Memory, ObservationType
from allenact.errors import ExperimentConfigError, MissingExtraError
from allenact.utils.misc_utils import partition_limits
from allenact_plugins.minigrid_plugin.minigrid_sensors import mission_tokens

Demo = tuple[str, bytes | np.ndarray, Sequence[int], Sequence[int]]


class MiniGridOffPolicyExpertCELoss(GenericAbstractLoss):
    """Cross-entropy between the policy and the recorded actions: -log pi(expert action), mean over the batch.

    Recurrent models carry their state from batch to batch in `stream_memory`.

    Args:
        total_episodes_in_epoch: kept for AllenAct's experiments; without effect.
    """

    def __init__(self, total_episodes_in_epoch: int | None = None) -> None:
        super().__init__()
        self.total_episodes_in_epoch = total_episodes_in_epoch

    def loss(
        self, *, model: torch.nn.Module, batch: ObservationType, batch_memory: Memory, stream_memory: Memory
    ) -> LossOutput:
        """Returns the loss of a batch of `MiniGridExpertTrajectoryStorage`; reports `expert_ce`."""
        expert_action = cast(torch.Tensor, batch["expert_action"])  # [T, N]
        num_steps, num_samplers = expert_action.shape
        if len(stream_memory) == 0:
            _append_zeros(stream_memory, cast(Any, model), num_samplers, expert_action.device)

        output, memory = model(
            observations=batch,
            memory=stream_memory if len(stream_memory) > 0 else None,
            prev_actions=None,
            masks=batch["masks"],
        )
        expert_ce = -output.distributions.log_prob(expert_action).mean()
        for name in stream_memory:
            stream_memory.set_tensor(name, memory.tensor(name))
        return LossOutput(
            value=expert_ce,
            info={"expert_ce": expert_ce.item()},
            per_epoch_info={},
            batch_memory=batch_memory,
            stream_memory=stream_memory,
            bsize=num_steps * num_samplers,
        )


def _append_zeros(memory: Memory, model: Any, num_samplers: int, device: torch.device) -> None:
    """Adds to `memory` zeros for everything that the model remembers."""
    for name, (dims, dtype) in (model.recurrent_memory_specification or {}).items():
        dim_names = [dim for dim, _ in dims]
        shape = [num_samplers if dim == "sampler" else size for dim, size in dims]
        memory.check_append(name, torch.zeros(shape, dtype=dtype, device=device), dim_names.index("sampler"))


def _unpack_images(images: bytes | np.ndarray) -> np.ndarray:
    """Returns the views of a demonstration, [L, v, v, 3] uint8."""
    if isinstance(images, np.ndarray):
        return images
    try:
        import blosc
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the images of these demonstrations are compressed with Blosc, which is not installed.",
            given="bytes instead of an array as the second entry of a demonstration",
            do="pip install blosc",
        ) from error
    array: np.ndarray = pickle.loads(blosc.decompress(images))
    return array


def transform_demos(demos: Sequence[Demo]) -> list[list[tuple[dict[str, Any], int, bool]]]:
    """Returns, for each demonstration, its steps: (observation, action, whether it is the last).

    An observation is a dict of `image` [v, v, 3], `direction` and `mission`, as MiniGrid's environments
    give it.
    """
    episodes = []
    for mission, packed, directions, actions in demos:
        images = _unpack_images(packed)
        last = len(images) - 1
        episodes.append(
            [
                ({"image": images[t], "direction": directions[t], "mission": mission}, actions[t], t == last)
                for t in range(len(images))
            ]
        )
    return episodes


class _Stream(NamedTuple):
    """Where one of the N streams is: the position of a demonstration in the data, and the step in it."""

    demo: int
    step: int


class MiniGridExpertTrajectoryStorage(ExperienceStorage, StreamingStorageMixin):
    """Endless batches of demonstrations: each of N streams plays one after the other, as samplers do.

    The demonstrations are shuffled (with Python's `random`) and all used once before any is used again.

    Args:
        data_path: pickled list of demonstrations; only open files that you trust.
        num_samplers: N, number of streams over all training workers.
        rollout_len: T, steps in a batch.
        instr_len: words of the mission that are kept; None for no missions.
        restrict_max_steps_in_dataset: use only the first demonstrations, as long as they have at most this
            many steps together; None for all.
        device: where batches are put.
    """

    _LOADED: ClassVar[dict[tuple[str, int | None], list[Demo]]] = {}  # by path and restriction

    def __init__(
        self,
        data_path: str,
        num_samplers: int,
        rollout_len: int,
        instr_len: int | None,
        restrict_max_steps_in_dataset: int | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008  # immutable
    ) -> None:
        self.data_path = str(data_path)
        self.num_samplers = num_samplers
        self.rollout_len = rollout_len
        self.instr_len = instr_len
        self.restrict_max_steps_in_dataset = restrict_max_steps_in_dataset
        self.device = device
        self._partition = (0, 1)
        self._total_experiences = 0
        self._demos: list[Demo] | None = None  # those of this worker, read when first needed
        self._opened: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}  # those being played
        self._waiting: list[int] = []  # demonstrations not played since the last shuffle
        self._streams: list[_Stream] = []  # empty before the first batch

    # What is played

    @property
    def data(self) -> list[Demo]:
        """The demonstrations of this worker."""
        if self._demos is None:
            key = (self.data_path, self.restrict_max_steps_in_dataset)
            if key not in self._LOADED:
                self._LOADED[key] = _load_demos(*key)
            demos, (index, num_parts) = self._LOADED[key], self._partition
            limits = partition_limits(num_items=len(demos), num_parts=num_parts)
            self._demos = demos[limits[index] : limits[index + 1]]
            if not self._demos:
                raise ExperimentConfigError(
                    "there are not enough demonstrations for every training worker.",
                    given=f"{len(demos)} demonstrations in {self.data_path}, {num_parts} workers",
                    do="use fewer workers, more data, or a larger restrict_max_steps_in_dataset.",
                )
        return self._demos

    @property
    def num_streams(self) -> int:
        """N of this worker."""
        return math.ceil(self.num_samplers / self._partition[1])

    def _next_demo(self) -> int:
        """Returns the position of a demonstration that was not played since the last shuffle."""
        if not self._waiting:
            self._waiting = random.sample(range(len(self.data)), len(self.data))
        return self._waiting.pop()

    def _open(self, demo: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the views [L, v, v, 3], actions [L] and mission [instr_len] of a demonstration."""
        if demo not in self._opened:
            mission, packed, _, actions = self.data[demo]
            tokens = np.zeros(0, dtype=np.int64) if self.instr_len is None else mission_tokens(mission, self.instr_len)
            self._opened[demo] = (_unpack_images(packed), np.asarray(actions, dtype=np.int64), tokens)
        return self._opened[demo]

    # StreamingStorageMixin

    def next_batch(self) -> dict[str, torch.Tensor]:
        """Returns the next T steps of every stream.

        Returns:
            masks: [T, N, 1] float32, 0 where a demonstration begins.
            minigrid_ego_image: [T, N, v, v, 3] uint8.
            expert_action: [T, N] int64.
            minigrid_mission: [T, N, instr_len] int64, unless `instr_len` is None.
        """
        if not self._streams:
            self._streams = [_Stream(self._next_demo(), 0) for _ in range(self.num_streams)]
        columns = [self._advance(n) for n in range(len(self._streams))]
        self._opened = {stream.demo: self._open(stream.demo) for stream in self._streams}

        masks, views, actions, missions = (np.stack(parts, axis=1) for parts in zip(*columns, strict=True))
        batch = {
            "masks": masks[..., None],  # [T, N, 1]
            "minigrid_ego_image": views,  # [T, N, v, v, 3]
            "expert_action": actions,  # [T, N]
        }
        if self.instr_len is not None:
            batch["minigrid_mission"] = missions  # [T, N, instr_len]
        self._total_experiences += actions.size
        return {name: torch.from_numpy(array).to(self.device) for name, array in batch.items()}

    def _advance(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns the next masks, views, actions and missions of stream n, each [T, ...], and moves on."""
        demo, step = self._streams[n]
        pieces = []
        missing = self.rollout_len
        while missing > 0:
            views, actions, mission = self._open(demo)
            stop = min(step + missing, len(actions))
            masks = (np.arange(step, stop) > 0).astype(np.float32)
            missions = np.broadcast_to(mission, (stop - step, len(mission)))
            pieces.append((masks, views[step:stop], actions[step:stop], missions))
            missing -= stop - step
            step = stop
            if step == len(actions):
                demo, step = self._next_demo(), 0
        self._streams[n] = _Stream(demo, step)
        masks, views, actions, missions = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        return masks, views, actions, missions

    def reset_stream(self) -> None:
        """Lets every stream begin with another demonstration, all of them shuffled anew."""
        self._waiting = []
        self._streams = []
        self._opened = {}

    def empty(self) -> bool:
        """False: there is always a next batch."""
        return False

    # ExperienceStorage

    def initialize(self, *, observations: ObservationType, **kwargs: Any) -> None:
        """Starts the streams anew; `observations` are not used."""
        self.reset_stream()

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
        """Ignores what the agent does."""

    def to(self, device: torch.device) -> None:
        """Sets where batches are put."""
        self.device = device

    def set_partition(self, index: int, num_parts: int) -> None:
        """Restricts the data to part `index` of `num_parts`, and N to ceil(num_samplers / num_parts)."""
        self._partition = (index, num_parts)
        self._demos = None
        self.reset_stream()

    @property
    def total_experiences(self) -> int:
        """Steps handed out, T * N for each batch."""
        return self._total_experiences

    def state_dict(self) -> dict[str, Any]:
        """Returns which demonstrations are being played and which wait."""
        return {
            "total_experiences": self._total_experiences,
            "waiting": list(self._waiting),
            "streams": [list(stream) for stream in self._streams],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken, on the same data."""
        self.reset_stream()
        self._total_experiences = state["total_experiences"]
        self._waiting = list(state["waiting"])
        self._streams = [_Stream(*stream) for stream in state["streams"]]


def _load_demos(path: str, max_steps: int | None) -> list[Demo]:
    """Returns the demonstrations in a file, the first that have at most `max_steps` steps together."""
    try:
        demos: list[Demo] = pickle.loads(Path(path).read_bytes())
    except OSError as error:
        raise ExperimentConfigError(
            "the file of demonstrations cannot be read.", given=f"data_path={path!r}: {error}"
        ) from error
    if max_steps is None:
        return demos
    total_steps = np.cumsum([len(actions) for _, _, _, actions in demos])
    return demos[: int(np.searchsorted(total_steps, max_steps, side="right"))]
