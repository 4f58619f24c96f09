"""How the model learns from stored experience: mini-batches, losses, backward, clip, step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from allenact.algorithms.onpolicy_sync.collection import StopRequested
from allenact.algorithms.onpolicy_sync.distributed import WorkerGroup
from allenact.algorithms.onpolicy_sync.kl_control import KLControl
from allenact.algorithms.onpolicy_sync.losses.abstract_loss import AbstractActorCriticLoss
from allenact.algorithms.onpolicy_sync.storage import (
    MiniBatchStorageMixin,
    RolloutBlockStorage,
    StreamingStorageMixin,
)
from allenact.algorithms.onpolicy_sync.update_threads import UpdateThreads
from allenact.base_abstractions.misc import ActorCriticOutput, GenericAbstractLoss, LossOutput, Memory
from allenact.errors import ExperimentConfigError, NonFiniteError
from allenact.utils.system import get_logger
from allenact.utils.torch_threads import torch_threads

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel
    from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage
    from allenact.pipeline.pipeline import TrainingPipeline
    from allenact.pipeline.settings import TrainingSettings
    from allenact.pipeline.stage import PipelineStage, StageComponent

Scalar = torch.Tensor | float | int

MOST_SKIPPED_IN_A_ROW = 10
"""Mini-batches without a finite gradient that end the run when they follow each other."""


@dataclass
class ComponentUpdate:
    """What one stage component did in one update."""

    component_uuid: str
    storage_uuid: str
    losses: list[tuple[dict[str, Scalar], int]] = field(default_factory=list)
    """`({loss/key: value}, rows)` of every mini-batch."""
    info: list[tuple[dict[str, Scalar], int]] = field(default_factory=list)
    """The same for learning rate, batch sizes, gradient norm."""

    def read(self) -> ComponentUpdate:
        """Returns the same with plain numbers. All tensors are read at once: one wait for a GPU."""
        entries = [*self.losses, *self.info]
        tensors = [value for scalars, _ in entries for value in scalars.values() if isinstance(value, torch.Tensor)]
        if not tensors:
            return self
        device = tensors[0].device
        numbers = iter(torch.stack([t.detach().to(device).reshape(()) for t in tensors]).tolist())

        def plain(scalars: dict[str, Scalar]) -> dict[str, Scalar]:
            return {k: next(numbers) if isinstance(v, torch.Tensor) else v for k, v in scalars.items()}

        losses = [(plain(scalars), n) for scalars, n in self.losses]
        return ComponentUpdate(
            self.component_uuid, self.storage_uuid, losses, [(plain(scalars), n) for scalars, n in self.info]
        )


class PolicyUpdater:
    """Computes the losses of a stage on its storages and, in training, follows their gradient.

    Args:
        actor_critic: the model.
        pipeline: builds losses by name and counts steps.
        optimizer: what applies gradients; None evaluates the losses only.
        workers: the training workers, whose gradients are summed.
        num_samplers: task samplers of this worker, from which the size of a mini-batch follows.
        stop_requested: asked before every mini-batch; once it answers True, `StopRequested` is raised.

    Attributes:
        skipped: mini-batches whose loss or gradient was NaN or infinite, and which changed nothing.
    """

    def __init__(
        self,
        actor_critic: ActorCriticModel[Any],
        pipeline: TrainingPipeline,
        optimizer: torch.optim.Optimizer | None,
        workers: WorkerGroup | None = None,
        num_samplers: int = 0,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.actor_critic = actor_critic
        self.pipeline = pipeline
        self.optimizer = optimizer
        self.workers = workers or WorkerGroup()
        self.threads = UpdateThreads(actor_critic, num_samplers, self.workers.size, report=self.workers.rank == 0)
        self.stop_requested = stop_requested
        self.skipped = self.skipped_in_a_row = 0

    def update(self, stage: PipelineStage, storages: Mapping[str, ExperienceStorage]) -> list[ComponentUpdate]:
        """Updates the model with every component of `stage`, in the order of their declaration.

        Raises:
            NonFiniteError: losses or their gradients are NaN or infinite, again and again.
        """
        updates = []
        for component in stage.stage_components:
            with torch_threads(self.num_threads(stage, component, storages[component.storage_uuid])):
                updates.append(self.update_component(stage, component, storages))
        return updates

    def num_threads(self, stage: PipelineStage, component: StageComponent, storage: ExperienceStorage) -> int:
        """Returns the number of threads that torch uses for a mini-batch of `component`."""
        if not any(_repeats_of_losses(component, evaluating=self.optimizer is None).values()):
            return 1  # it makes no pass
        is_rollout = isinstance(storage, RolloutBlockStorage) and component.training_settings.num_mini_batch
        draw = (lambda: next(self._batches(stage, component, storage))) if is_rollout else None
        return self.threads.choose(component, draw)

    def update_component(
        self, stage: PipelineStage, component: StageComponent, storages: Mapping[str, ExperienceStorage]
    ) -> ComponentUpdate:
        """Makes `max(update_repeats)` passes over the component's storage (1 in evaluation)."""
        storage = storages[component.storage_uuid]
        settings = component.training_settings
        repeats = _repeats_of_losses(component, evaluating=self.optimizer is None)
        epochs = max(repeats.values(), default=0)
        summary = ComponentUpdate(component.uuid, component.storage_uuid)
        kl = KLControl(settings, self.optimizer, self.workers, stage.steps_taken_in_stage)
        for epoch in range(epochs):
            names = [name for name, count in repeats.items() if count > epoch]
            for batch in self._batches(stage, component, storage):
                if self.stop_requested():
                    raise StopRequested
                scalars, rows, output = self._mini_batch(stage, component, names, batch, epoch, epochs)
                summary.info.append((kl.look(batch, output, rows), rows))
                if kl.stopped:
                    break
                if self.optimizer is not None:
                    step_info = self._backward_and_step(scalars["total_loss"], rows, settings.max_grad_norm)
                    if step_info is None:
                        continue  # nothing was learned from this mini-batch
                    summary.info.append((step_info, rows))
                summary.losses.append((scalars, rows))
                summary.info.append(({"worker_batch_size": rows}, 1))
                kl.judge("mini_batch")
                stream_memory = stage.stage_component_uuid_to_stream_memory.get(component.uuid)
                if stream_memory is not None:
                    _detach(stream_memory)
            kl.judge("pass")
            if kl.stopped:
                break
        kl.judge("update")
        if summary.losses:
            info: dict[str, Scalar] = {"rollout_epochs": epoch + 1}
            if settings.num_mini_batch is not None:
                info["rollout_num_mini_batch"] = self._num_mini_batch(settings)
            summary.info.append((info, 1))
        return summary.read()

    def _batches(
        self, stage: PipelineStage, component: StageComponent, storage: ExperienceStorage
    ) -> Iterator[dict[str, Any]]:
        """Yields the batches of one pass over `storage`."""
        settings = component.training_settings
        if isinstance(storage, MiniBatchStorageMixin):
            # Said only where it is not the default, since the storages of plugins need not know the option.
            over = {} if settings.mini_batches_over == "samplers" else {"mini_batches_over": "steps"}
            yield from storage.batched_experience_generator(num_mini_batch=self._num_mini_batch(settings), **over)
        elif isinstance(storage, StreamingStorageMixin):
            batch = self._next_streamed(stage, component, storage)
            if batch is not None:
                yield batch
        else:
            raise ExperimentConfigError(
                f'storage "{component.storage_uuid}" offers no batches to learn from.',
                f"{type(storage).__name__}, used by stage component {component.uuid}",
                "derive it from MiniBatchStorageMixin or StreamingStorageMixin.",
            )

    def _num_mini_batch(self, settings: TrainingSettings) -> int:
        """Returns 1 in evaluation, which learns nothing, and may have fewer samplers than training has mini-batches."""
        return 1 if self.optimizer is None else settings.num_mini_batch

    def _next_streamed(
        self, stage: PipelineStage, component: StageComponent, storage: StreamingStorageMixin
    ) -> dict[str, Any] | None:
        """Returns the next batch of a stream, starting it anew at its end; None if it holds no data."""
        try:
            return storage.next_batch()
        except EOFError:
            if self.optimizer is None:
                raise
        if storage.empty():
            get_logger().warning(f'Storage "{component.storage_uuid}" is empty: no update with {component.uuid}.')
            return None
        storage.reset_stream()
        stage.stage_component_uuid_to_stream_memory[component.uuid].clear()
        return storage.next_batch()

    def _mini_batch(
        self,
        stage: PipelineStage,
        component: StageComponent,
        loss_names: Sequence[str],
        batch: dict[str, Any],
        epoch: int,
        epochs: int,
    ) -> tuple[dict[str, Scalar], int, ActorCriticOutput[Any] | None]:
        """Returns the scalars of one mini-batch (`total_loss` among them), its rows, and what the model said."""
        output = None
        batch_memory = Memory()
        scalars: dict[str, Scalar] = {}
        total: Any = 0.0
        rows = batch.get("bsize")
        for name in loss_names:
            loss = self.pipeline.get_loss(name)
            if isinstance(loss, AbstractActorCriticLoss):
                if output is None:
                    output, _ = self.actor_critic(
                        observations=batch["observations"],
                        memory=batch["memory"],
                        prev_actions=batch["prev_actions"],
                        masks=batch["masks"],
                    )
                value, info, *rest = loss.loss(
                    step_count=stage.steps_taken_in_stage, batch=batch, actor_critic_output=output
                )
                per_epoch_info = rest[0] if rest else {}
            elif isinstance(loss, GenericAbstractLoss):
                stream_memories = stage.stage_component_uuid_to_stream_memory
                result: LossOutput = loss.loss(
                    model=self.actor_critic,
                    batch=batch,
                    batch_memory=batch_memory,
                    stream_memory=stream_memories[component.uuid],
                )
                # Models may write into the memories that they get, or answer with new ones.
                batch_memory = batch_memory if result.batch_memory is None else result.batch_memory
                if result.stream_memory is not None:
                    stream_memories[component.uuid] = result.stream_memory
                value, info, per_epoch_info = result.value, result.info, result.per_epoch_info
                rows = result.bsize if rows is None else rows
            else:
                raise ExperimentConfigError(
                    f'loss "{name}" is no loss this trainer knows.',
                    type(loss).__name__,
                    "derive it from AbstractActorCriticLoss or GenericAbstractLoss.",
                )
            total = total + stage.uuid_to_loss_weight[name] * value
            scalars.update({f"{name}/{key}": item for key, item in info.items()})
            for key, item in (per_epoch_info or {}).items():
                if epochs > 1:
                    scalars[f"{name}/{key}_epoch{epoch:02d}"] = item
                    scalars[f"{name}/{key}_combined"] = item
                else:
                    scalars[f"{name}/{key}"] = item
        scalars["total_loss"] = total
        return scalars, int(rows or 0), output

    def _backward_and_step(self, total_loss: Any, rows: int, max_grad_norm: float | None) -> dict[str, Scalar] | None:
        """Follows the gradient of the mean over all workers' rows.

        Returns:
            What to report; None if loss or gradient are NaN or infinite, and the model has been left as it was.
        """
        optimizer = self.optimizer
        if optimizer is None:
            raise ValueError("An updater without optimizer only evaluates losses.")
        all_rows = self.workers.sum_int(rows)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        optimizer.zero_grad(set_to_none=True)
        if isinstance(total_loss, torch.Tensor) and total_loss.requires_grad:
            # Scaled by its share of the rows, the sum of the workers' gradients is that of the mean over all rows.
            scaled = total_loss if self.workers.size == 1 else total_loss * (rows / max(all_rows, 1))
            scaled.backward()
        self.workers.sum_gradients(parameters)
        own_norm = getattr(self.actor_critic, "compute_total_grad_norm", None)
        reported = None if own_norm is None else own_norm()  # a model may report another norm than that of all weights
        norm = torch.nn.utils.clip_grad_norm_(
            parameters, float("inf") if max_grad_norm is None else max_grad_norm
        )  # 0-d, before clipping
        if not torch.isfinite(norm):  # summed over the workers, so that all of them see it
            self._skip(total_loss, norm)
            return None
        self.skipped_in_a_row = 0
        optimizer.step()
        return {
            "global_batch_size": all_rows,
            "lr": float(optimizer.param_groups[0]["lr"]),
            "total_grad_norm": norm if reported is None else reported,
        }

    def _skip(self, total_loss: Any, norm: torch.Tensor) -> None:
        """Counts a mini-batch that nothing can be learned from.

        Raises:
            NonFiniteError: it is one too many.
        """
        self.skipped += 1
        self.skipped_in_a_row += 1
        loss = float(torch.as_tensor(total_loss).detach())
        symptom = f"total loss {loss:g}, gradient norm {float(norm):g}"
        if self.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise NonFiniteError(
                f"the loss or its gradient was NaN or infinite in {self.skipped_in_a_row} mini-batches in a row.",
                symptom,
                "lower the learning rate, or look for infinite rewards; the last checkpoint holds finite weights.",
            )
        if self.skipped_in_a_row == 1:
            get_logger().warning(f"A mini-batch is skipped, because its loss or gradient is not finite: {symptom}")


def set_learning_rate(scheduler: Any, total_steps: int) -> None:
    """Sets the learning rate that the schedule (if there is one) has at `total_steps` environment steps."""
    if scheduler is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that schedules of a given step are out of fashion
            scheduler.step(total_steps)


def use_fused_kernels(optimizer: torch.optim.Optimizer) -> None:
    """Lets Adam update all parameters in one kernel, unless the experiment has chosen otherwise."""
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
        return
    for group in optimizer.param_groups:
        undecided = group["fused"] is None and not any(
            group[flag] for flag in ("foreach", "capturable", "differentiable")
        )
        if undecided and all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in group["params"]):
            group["fused"] = True


def _repeats_of_losses(component: StageComponent, evaluating: bool) -> dict[str, int]:
    """Returns the number of passes for each loss of the component; evaluation makes one."""
    repeats = component.training_settings.update_repeats
    if evaluating:
        return dict.fromkeys(component.loss_names, 1)
    if repeats is None or isinstance(repeats, int):
        return dict.fromkeys(component.loss_names, repeats or 0)
    return dict(zip(component.loss_names, repeats, strict=True))


def _detach(memory: Memory) -> None:
    for key in memory:
        memory.set_tensor(key, memory.tensor(key).detach())
