"""With how many torch threads the model learns from a mini-batch fastest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.utils.seeding import preserve_rng_state
from allenact.utils.system import get_logger
from allenact.utils.torch_threads import fastest, most_threads, threads_for, time_threads

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel
    from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage
    from allenact.pipeline.settings import TrainingSettings


class UpdateThreads:
    """Chooses the number of threads for mini-batches of one size when the first of them is there.

    The sizes of mini-batch and model say which number is usual. On a CPU, the gradient of what the model says of one
    mini-batch is then timed with this number and with others that give the same bits. So what is learned may depend on
    how many cores there are, but not on what else they were doing.

    Args:
        model: what is updated.
        num_samplers: task samplers of this worker.
        num_workers: training workers that share the cores with this one, itself included.
        report: whether to log what was chosen.
    """

    def __init__(self, model: ActorCriticModel[Any], num_samplers: int, num_workers: int, report: bool) -> None:
        self.model = model
        self.num_samplers = num_samplers
        self.num_workers = num_workers
        self.report = report
        self._chosen: dict[tuple[object, ...], int] = {}  # by what the size of a mini-batch follows from

    def choose(self, settings: TrainingSettings, storage: ExperienceStorage) -> int:
        """Returns the number of threads for mini-batches of `storage` that are cut as `settings` say."""
        sizes = (settings.num_steps, settings.num_mini_batch, settings.mini_batches_over)
        if sizes not in self._chosen:
            self._chosen[sizes] = self._measured(settings, storage)
        return self._chosen[sizes]

    def _measured(self, settings: TrainingSettings, storage: ExperienceStorage) -> int:
        parameters = list(self.model.parameters())
        rows = (settings.num_steps or 0) * self.num_samplers / max(settings.num_mini_batch or 1, 1)
        usual = threads_for(rows, sum(parameter.numel() for parameter in parameters), self.num_workers)
        most = most_threads(self.num_workers)
        on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
        if most == 1 or not on_cpu or not isinstance(storage, RolloutBlockStorage) or not settings.num_mini_batch:
            return usual
        with _unchanged(self.model):
            seconds = time_threads(lambda: self._gradient(settings, storage), usual, most)
        chosen = fastest(seconds)
        if self.report:
            times = ", ".join(f"{1000 * took:.1f} ms with {count}" for count, took in sorted(seconds.items()))
            get_logger().info(
                f"mini-batches of about {rows:,.0f} steps on {chosen} torch thread{'s'[: chosen - 1]}"
                f"; the gradient of one took {times}"
            )
        return chosen

    def _gradient(self, settings: TrainingSettings, storage: RolloutBlockStorage) -> list[torch.Tensor]:
        """Returns the gradient of the values and log-probabilities of the same mini-batch at each call."""
        with preserve_rng_state():
            batches = storage.batched_experience_generator(settings.num_mini_batch or 1, settings.mini_batches_over)
            batch = next(batches)
            output, _ = self.model(
                observations=batch["observations"],
                memory=batch["memory"],
                prev_actions=batch["prev_actions"],
                masks=batch["masks"],
            )
            said = output.values.mean() + output.distributions.log_prob(batch["actions"]).mean()  # 0-d
            learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            if not learning or not said.requires_grad:
                return []
            gradients = torch.autograd.grad(said, learning, allow_unused=True)
        return [gradient for gradient in gradients if gradient is not None]


@contextmanager
def _unchanged(model: torch.nn.Module) -> Iterator[None]:
    """Leaves the buffers of `model` as they were, whatever passes through it inside."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])
