"""The runner's side of logging: packages from the workers in; console, TensorBoard, metrics files and callbacks out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allenact.algorithms.onpolicy_sync.tracking import LogPackage, mean_metrics
from allenact.utils.misc_utils import NumpyJSONEncoder
from allenact.utils.system import get_logger

if TYPE_CHECKING:
    from allenact.base_abstractions.callbacks import Callback
    from allenact.runs.live_progress import Progress
    from allenact.utils.summary_writer import SummaryWriter
    from allenact.viz import VizSuite


class LogSink:
    """Writes what the workers report, wherever it is wanted.

    Args:
        callbacks: told about every log.
        writer: TensorBoard's, None to write no event files.
        metrics_file: gets one JSON object per log, None to write none.
        visualizer: draws what evaluation collected, None for no pictures.
        progress: shows every log on a terminal, instead of a line for each; None for lines.
    """

    def __init__(
        self,
        *,
        callbacks: Sequence[Callback] = (),
        writer: SummaryWriter | None = None,
        metrics_file: Path | None = None,
        visualizer: VizSuite | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.callbacks = callbacks
        self.writer = writer
        self.visualizer = visualizer
        self.progress = progress
        self._metrics_file = metrics_file
        self._warned: set[str] = set()
        self._started = self._last_train_time = time.monotonic()
        self._seconds_writing = 0.0  # since the last training log
        self._last_train: LogPackage | None = None

    def write(self, packages: Sequence[LogPackage]) -> dict[str, Any]:
        """Writes one log: a package from each worker of a mode, all about the same number of training steps.

        Returns:
            The means by tag, with `training_steps` and `tasks`: for evaluation, the entry of the results file.
        """
        began = time.monotonic()
        package = merge(packages)
        means, x_axis = self._means(package)
        if self.progress is not None:
            self.progress.logged(package, means)
        else:
            self._write_console(package, means)
        self.attempt("the metrics file", partial(self._write_metrics_line, package, means))
        self.attempt("TensorBoard's files", partial(self._write_tensorboard, package, means, x_axis))
        results = self._results(package, means)
        self._tell_callbacks(package, means, x_axis, results)
        self._seconds_writing += time.monotonic() - began
        return results

    def close(self, failed: bool = False) -> None:
        """Flushes and closes all files, and tells the callbacks that this is the end. The second time, nothing is done.

        Args:
            failed: whether the run ends with an error.
        """
        for callback in self.callbacks:
            self.attempt(f"what {type(callback).__name__} records", partial(callback.on_end, failed=failed))
        self.callbacks = ()
        if self.writer is not None:
            self.attempt("TensorBoard's files", self.writer.close)
            self.writer = None

    def attempt(self, what: str, write: Callable[[], None]) -> None:
        """Writes what training does not depend on; says once if that fails."""
        try:
            write()
        except OSError as error:
            if what not in self._warned:
                get_logger().warning(f"Training goes on, but {what} cannot be written: {error}")
            self._warned.add(what)

    # What a package says

    def _means(self, package: LogPackage) -> tuple[dict[str, float], dict[str, str]]:
        """Returns every scalar by tag, and for some tags the tag of the counter that is their x-axis."""
        mode = package.mode
        means = {f"{mode}-metrics/{key}": value for key, value in mean_metrics(package.metrics).items()}
        means.update({tag: total / count for tag, (total, count) in package.scalars.items() if count})
        means[f"{mode}-misc/num_tasks_completed_since_last_log"] = len(package.metrics)
        x_axis = {
            tag: f"{mode}-misc/{uuid}_total_experiences" for tag, uuid in package.scalar_storage.items() if tag in means
        }
        for uuid, experiences in package.storage_experiences.items():
            means[f"{mode}-misc/{uuid}_total_experiences"] = experiences
        if mode == "train":
            if package.pipeline_stage is not None:
                means["train-misc/pipeline_stage"] = package.pipeline_stage
            means.update(self._rates(package, x_axis))
        elif "evaluate" in package.seconds:
            means[f"{mode}-misc/evaluation_seconds"] = package.seconds["evaluate"]
        if package.dropped_metrics:
            get_logger().warning(f"{package.dropped_metrics} finished tasks had no metrics that could be used.")
        return means, x_axis

    def _rates(self, package: LogPackage, x_axis: dict[str, str]) -> dict[str, float]:
        """Returns steps and experiences per second since the previous training log; none for the first."""
        now, last = package.made_at, self._last_train
        elapsed = max(now - self._last_train_time, 1e-9)
        self._last_train, self._last_train_time = package, now
        if last is None or last.training_steps <= 0:
            return {}
        rates = {"train-misc/approx_fps": (package.training_steps - last.training_steps) / elapsed}
        for component, storage in package.component_storage.items():
            tag = f"train-{component}-misc/approx_eps"
            gained = package.storage_experiences[storage] - last.storage_experiences.get(storage, 0)
            rates[tag] = gained / elapsed
            x_axis[tag] = f"train-misc/{storage}_total_experiences"
        for phase, seconds in (*package.seconds.items(), ("log", self._seconds_writing)):
            rates[f"train-misc/time_share_{phase}"] = seconds / elapsed
        self._seconds_writing = 0.0
        return rates

    def _results(self, package: LogPackage, means: dict[str, float]) -> dict[str, Any]:
        parts = (f"{package.mode}-metrics/", "-losses/", "-misc/")
        inert = (f"{package.mode}-misc/",)
        kept = {
            tag: value
            for tag, value in means.items()
            if any(part in tag for part in parts) and not tag.startswith(inert)
        }
        return {**kept, "training_steps": package.training_steps, "tasks": package.metrics}

    # Where it goes

    def _write_console(self, package: LogPackage, means: dict[str, float]) -> None:
        words = [f"{package.mode.upper()}: {package.training_steps} rollout steps ({package.storage_experiences})"]
        for tag in sorted(means, key=lambda tag: (tag.count("/"), tag)):
            group, key = tag.split("/", 1)
            is_counter = group == f"{package.mode}-misc" and not key.startswith("teacher_ratio/")
            if not is_counter and not tag.endswith("-misc/approx_eps"):
                words.append(f"{key} {means[tag]:.3g}")
        if package.mode == "train":
            words.append(f"elapsed_time {time.monotonic() - self._started:.3g}s")
            if "train-misc/approx_fps" in means:
                words.append(f"approx_fps {means['train-misc/approx_fps']:.3g}")
            for component, storage in package.component_storage.items():
                tag = f"train-{component}-misc/approx_eps"
                if tag in means:
                    words.append(f"{storage}/approx_eps {means[tag]:.3g}")
        words.append(f"new_tasks_completed {len(package.metrics)}")
        if package.mode != "train":
            words.append(f"checkpoint {package.checkpoint_file_name}")
        get_logger().info(" ".join(words))

    def _write_metrics_line(self, package: LogPackage, means: dict[str, float]) -> None:
        if self._metrics_file is None:
            return
        line = {
            "mode": package.mode,
            "training_steps": package.training_steps,
            "wall_time": time.time(),
            "elapsed_time": time.monotonic() - self._started,
            **means,
        }
        self._metrics_file.parent.mkdir(parents=True, exist_ok=True)  # somebody may have removed the output folder
        with open(self._metrics_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, cls=NumpyJSONEncoder) + "\n")

    def _write_tensorboard(self, package: LogPackage, means: dict[str, float], x_axis: dict[str, str]) -> None:
        if self.writer is None:
            return
        for tag, value in means.items():
            step = int(means[x_axis[tag]]) if tag in x_axis else package.training_steps
            self.writer.add_scalar(tag, value, global_step=step)
        for name, text in package.notes.items():
            self.writer.add_text(f"{package.mode}/{name}", text, global_step=package.training_steps)
        if self.visualizer is not None and package.mode != "train":
            self.visualizer.log(
                log_writer=self.writer,
                task_outputs=package.metrics,
                render=package.viz_data,
                num_steps=package.training_steps,
            )
        self.writer.flush()

    def _tell_callbacks(
        self, package: LogPackage, means: dict[str, float], x_axis: dict[str, str], results: dict[str, Any]
    ) -> None:
        for callback in self.callbacks:
            notify = partial(
                getattr(callback, f"on_{package.mode}_log"),
                metrics=package.metrics if package.mode == "train" else results,
                metric_means=means,
                tasks_data=package.tasks_data,
                step=package.training_steps,
                scalar_name_to_total_experiences_key=x_axis,
                checkpoint_file_name=package.checkpoint_file_name,
            )
            self.attempt(f"what {type(callback).__name__} records", notify)


def merge(packages: Sequence[LogPackage]) -> LogPackage:
    """Returns one package that holds what several workers of a mode report about the same training steps."""
    first, *others = packages
    for other in others:
        for tag, (total, count) in other.scalars.items():
            entry = first.scalars.setdefault(tag, [0.0, 0.0])
            entry[0] += total
            entry[1] += count
        first.scalar_storage.update(other.scalar_storage)
        first.metrics.extend(other.metrics)
        first.tasks_data.extend(other.tasks_data)
        first.dropped_metrics += other.dropped_metrics
        first.notes = {**other.notes, **first.notes}
        if other.viz_data:
            first.viz_data = {**(first.viz_data or {}), **other.viz_data}
        first.checkpoint_file_name = first.checkpoint_file_name or other.checkpoint_file_name
    return first


def write_json(path: Path, content: Any) -> None:
    """Writes a results file in upstream's format: indented, keys sorted, NumPy numbers as plain ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4, sort_keys=True, cls=NumpyJSONEncoder), encoding="utf-8")
