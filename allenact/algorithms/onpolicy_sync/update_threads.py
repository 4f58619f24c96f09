"""Chooses the number of torch threads for updates, by timing a mini-batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from allenact.utils.seeding import preserve_rng_state
from allenact.utils.system import get_logger
from allenact.utils.torch_threads import fastest, most_threads, threads_for, time_threads

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel
    from allenact.pipeline.settings import TrainingSettings
    from allenact.pipeline.stage import StageComponent


class UpdateThreads:
    """Chooses the number of threads for the mini-batches of a stage component when the first of them is there.

    The sizes of mini-batch and model say which number is usual. On a CPU, the gradient of what a copy of the model says
    of one mini-batch is then timed with this number and with others that give the same bits. So how busy the machine
    was does not decide what is learned. Matrix products of another size may differ in their last bits with the number
    of threads; where others will come, in mini-batches of uneven sizes or in the pieces of episodes that a model with
    memory is run on, nothing is timed.

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

    def choose(self, component: StageComponent, draw: Callable[[], dict[str, Any]] | None) -> int:
        """Returns the number of threads for the mini-batches of a component.

        Args:
            component: of the stage.
            draw: returns a mini-batch, as often as it is asked; None where that would change what is learned.
        """
        settings = component.training_settings
        sizes = (settings.num_steps, settings.num_mini_batch, settings.mini_batches_over)
        key = (component.storage_uuid, *sizes)
        if key not in self._chosen:
            rows = (settings.num_steps or 0) * self.num_samplers / max(settings.num_mini_batch or 1, 1)
            if _has_other_sizes(settings, self.num_samplers, self.model):
                draw = None
            self._chosen[key], why = self._choice(rows, draw)
            if self.report:
                threads = f"{self._chosen[key]} torch thread{'s'[: self._chosen[key] - 1]}"
                get_logger().info(
                    f"{component.storage_uuid}: mini-batches of about {rows:,.0f} steps on {threads}; {why}"
                )
        return self._chosen[key]

    def _choice(self, rows: float, draw: Callable[[], dict[str, Any]] | None) -> tuple[int, str]:
        """Returns the number of threads, and why."""
        parameters = list(self.model.parameters())
        usual = threads_for(rows, sum(parameter.numel() for parameter in parameters), self.num_workers)
        most = most_threads(self.num_workers)
        if most == 1:
            return usual, "it may use one core"
        if draw is None or any(parameter.device.type != "cpu" for parameter in parameters):
            return usual, "not measured, but by the size of the work"
        try:
            model = copy.deepcopy(self.model)  # whose buffers and counters may change
            seconds = time_threads(lambda: _gradient(model, draw), usual, most)
        except Exception as error:  # of the model's own code; a model that cannot do without will raise again
            return usual, f"not measured: {type(error).__name__}: {error}"
        times = ", ".join(f"{1000 * took:.1f} ms with {count}" for count, took in sorted(seconds.items()))
        return fastest(seconds), f"the gradient of one took {times}"


def _has_other_sizes(settings: TrainingSettings, num_samplers: int, model: ActorCriticModel[Any]) -> bool:
    """Whether the matrix products of one mini-batch may have other sizes than those of the next."""
    steps = num_samplers * (1 if settings.mini_batches_over == "samplers" else settings.num_steps or 1)
    is_uneven = steps % max(settings.num_mini_batch or 1, 1) != 0
    return is_uneven or getattr(model, "recurrent_memory_specification", None) is not None


def _gradient(model: ActorCriticModel[Any], draw: Callable[[], dict[str, Any]]) -> list[torch.Tensor]:
    """Returns the gradient of the values and log-probabilities of the same mini-batch at each call."""
    with preserve_rng_state():
        batch = draw()
        output, _ = model(
            observations=batch["observations"],
            memory=batch["memory"],
            prev_actions=batch["prev_actions"],
            masks=batch["masks"],
        )
        said = [output.values, output.distributions.log_prob(batch["actions"])]
        said = [tensor for tensor in said if tensor.requires_grad]
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not said or not learning:
            return []
        # Weights as uneven as those of a loss: sums of equal numbers may have the same bits in any order.
        weights = [torch.randn_like(tensor) for tensor in said]
        gradients = torch.autograd.grad(said, learning, weights, allow_unused=True)
    return [gradient for gradient in gradients if gradient is not None]
