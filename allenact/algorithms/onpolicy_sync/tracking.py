"""The worker's side of logging: gathers scalars and finished episodes until they are sent to the runner."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from allenact.errors import TaskError
from allenact.utils.metrics import ScalarMeanTracker
from allenact.utils.system import get_logger
from allenact.utils.timing import duration

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.update import ComponentUpdate
    from allenact.base_abstractions.task_batch import FinishedEpisode

Weighted = list[float]  # [sum, count]


@dataclass
class LogPackage:
    """What one worker reports since its last package. Sent over a pipe, so builtins and arrays only."""

    mode: str
    """"train", "valid" or "test"."""
    training_steps: int
    """Environment steps over all stages and workers."""
    storage_experiences: dict[str, int]
    """Total experiences by storage uuid."""
    pipeline_stage: int | None = None
    checkpoint_file_name: str | None = None
    scalars: dict[str, Weighted] = field(default_factory=dict)
    """TensorBoard tag -> [weighted sum, weight]."""
    scalar_storage: dict[str, str] = field(default_factory=dict)
    """TensorBoard tag -> uuid of the storage whose experiences are the tag's x-axis."""
    component_storage: dict[str, str] = field(default_factory=dict)
    """Stage component uuid -> uuid of its storage."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """`task.metrics()` of every finished episode."""
    tasks_data: list[dict[str, Any]] = field(default_factory=list)
    """Observations of the callback sensors on every finished episode."""
    dropped_metrics: int = 0
    """Episodes whose metrics could not be used."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds by phase of the loop."""
    made_at: float = field(default_factory=time.monotonic, compare=False)
    """Seconds of this machine's clock; the runner may be busy drawing when the package arrives."""
    viz_data: dict[str, Any] | None = None
    """What a visualiser collected (evaluation only)."""
    notes: dict[str, str] = field(default_factory=dict)
    """Texts for TensorBoard, by name; sent once."""
    task_seeds: list[int] = field(default_factory=list)
    """Seeds that the episodes began with, as far as the experiment fixes them (evaluation only)."""


@dataclass(frozen=True)
class EvaluationStatus:
    """The progress of the evaluation of a checkpoint, sent over a pipe while it runs."""

    episodes: int
    """Episodes completed."""
    total: int
    """Episodes in all."""
    steps: int
    """Environment steps taken."""
    seconds: float
    """Wall-clock seconds since it began, above 0."""
    means: dict[str, float]
    """Means of the metrics over the completed episodes."""

    @classmethod
    def of(cls, parts: Sequence[EvaluationStatus]) -> EvaluationStatus:
        """Returns the joint progress of several workers, at least one."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for part in parts:
            for key, mean in part.means.items():
                sums[key] = sums.get(key, 0.0) + part.episodes * mean
                counts[key] = counts.get(key, 0) + part.episodes
        return cls(
            episodes=sum(part.episodes for part in parts),
            total=sum(part.total for part in parts),
            steps=sum(part.steps for part in parts),
            seconds=max(part.seconds for part in parts),
            means={key: total / counts[key] for key, total in sums.items()},
        )

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last episode at this rate; None before the first one has ended."""
        return self.seconds / self.episodes * (self.total - self.episodes) if self.episodes else None


def log_status(status: EvaluationStatus) -> None:
    """Logs the progress of the evaluation of a checkpoint."""
    left = "" if status.seconds_left is None else f", about {duration(status.seconds_left)} left"
    means = " ".join(f"{key} {value:.3g}" for key, value in sorted(status.means.items()))
    speed = status.steps / status.seconds
    get_logger().info(f"Evaluated {status.episodes} of {status.total} tasks, {speed:.0f} steps/s{left} {means}")


class Tracker:
    """Accumulates weighted means of scalars, and the metrics of finished episodes.

    Args:
        mode: "train", "valid" or "test"; the first part of every tag.

    Attributes:
        notes: texts for the next package, by name.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.notes: dict[str, str] = {}
        self._clear()

    def _clear(self) -> None:
        self.scalars: dict[str, Weighted] = {}
        self.scalar_storage: dict[str, str] = {}
        self.metrics: list[dict[str, Any]] = []
        self.tasks_data: list[dict[str, Any]] = []
        self.dropped_metrics = 0

    def add_scalar(self, tag: str, value: float, weight: float = 1, storage_uuid: str | None = None) -> None:
        """Adds `value` to the weighted mean of `tag`."""
        entry = self.scalars.setdefault(tag, [0.0, 0.0])
        entry[0] += float(value) * weight
        entry[1] += weight
        if storage_uuid is not None:
            self.scalar_storage[tag] = storage_uuid

    def add_updates(self, updates: Iterable[ComponentUpdate]) -> None:
        """Adds the losses and the other scalars of an update."""
        for update in updates:
            for kind, entries in (("losses", update.losses), ("misc", update.info)):
                for scalars, weight in entries:
                    for key, value in scalars.items():
                        tag = f"{self.mode}-{update.component_uuid}-{kind}/{key}"
                        self.add_scalar(tag, float(value), weight, update.storage_uuid)

    def add_episodes(self, episodes: Iterable[FinishedEpisode]) -> None:
        """Adds finished episodes. Metrics that are empty, only task_info, or have success None are not used."""
        for episode in episodes:
            metrics = episode.metrics
            if not is_counted(metrics):
                self.dropped_metrics += 1
                continue
            self.metrics.append(metrics)
            if episode.callback_data is not None:
                self.tasks_data.append(episode.callback_data)

    def metric_means(self) -> dict[str, float]:
        """Returns the mean of every metric over the episodes gathered so far."""
        return mean_metrics(self.metrics)

    def pop(self, training_steps: int, storage_experiences: dict[str, int], **more: Any) -> LogPackage:
        """Returns everything gathered since the last call, and clears it."""
        package = LogPackage(
            mode=self.mode,
            training_steps=training_steps,
            storage_experiences=storage_experiences,
            scalars=self.scalars,
            scalar_storage=self.scalar_storage,
            metrics=self.metrics,
            tasks_data=self.tasks_data,
            dropped_metrics=self.dropped_metrics,
            notes=self.notes,
            **more,
        )
        self._clear()
        self.notes = {}
        return package

    def state_dict(self) -> dict[str, Any]:
        """Returns what has been gathered since the last package, for a checkpoint."""
        return {
            "scalars": {tag: list(entry) for tag, entry in self.scalars.items()},
            "scalar_storage": dict(self.scalar_storage),
            "metrics": list(self.metrics),
            "tasks_data": list(self.tasks_data),
            "dropped_metrics": self.dropped_metrics,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._clear()
        self.scalars = {tag: list(entry) for tag, entry in state["scalars"].items()}
        self.scalar_storage = dict(state["scalar_storage"])
        self.metrics = list(state["metrics"])
        self.tasks_data = list(state["tasks_data"])
        self.dropped_metrics = state["dropped_metrics"]


def is_counted(metrics: Mapping[str, Any]) -> bool:
    """Says whether an episode with these metrics counts; see `Task.metrics`."""
    return bool(metrics.keys() - {"task_info"}) and metrics.get("success", 0) is not None


def metric_means(episodes: Iterable[FinishedEpisode]) -> ScalarMeanTracker:
    """Returns the metrics of some episodes as early stopping criteria want them.

    Raises:
        TaskError: a value is no number.
    """
    means = ScalarMeanTracker()
    for metrics in (episode.metrics for episode in episodes if is_counted(episode.metrics)):
        means.add_scalars({key: _number(key, value) for key, value in metrics.items() if key != "task_info"})
    return means


def mean_metrics(metrics: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Returns plain means over episodes, key by key; an episode without a key does not count for it.

    Raises:
        TaskError: a value is no number.
    """
    values: dict[str, list[float]] = {}
    for episode in metrics:
        for key, value in episode.items():
            if key != "task_info":
                values.setdefault(key, []).append(_number(key, value))
    return {key: sum(items) / len(items) for key, items in values.items()}


def _number(key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TaskError(
            f'the metric "{key}" of a task is no number.',
            f"metrics() returned {value!r}",
            'return numbers from metrics(); anything else belongs under "task_info".',
        ) from error
