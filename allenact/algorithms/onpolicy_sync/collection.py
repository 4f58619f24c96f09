"""How experience is gathered: act with the model, step the tasks, store what happened."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from allenact.algorithms.onpolicy_sync.deferred_collection import (
    add_predictions,
    collect_from_processes,
    collect_in_lockstep,
    deferred_policy,
    make_rollout_request,
)
from allenact.algorithms.onpolicy_sync.non_finite import explain_non_finite, require_finite_rewards
from allenact.algorithms.onpolicy_sync.policy import ReparameterizedPolicy
from allenact.algorithms.onpolicy_sync.space_checks import explain_misfit, missing_observation
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.errors import ExperimentConfigError
from allenact.utils import spaces_utils
from allenact.utils.tensor_utils import add_step_dim, clone_recursively, stack_observations, to_tensors

if TYPE_CHECKING:
    from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel
    from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage, RolloutStorage
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import VectorTasks
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.process_rollouts import RolloutChunk, RolloutRequest
    from allenact.base_abstractions.misc import ActorCriticOutput, Memory
    from allenact.base_abstractions.preprocessor import SensorPreprocessorGraph
    from allenact.base_abstractions.task_batch import FinishedEpisode, StepBatch


class StopRequested(Exception):  # noqa: N818 - it is a request, not an error
    """Somebody asked the run to stop while a rollout was being collected."""


@dataclass(frozen=True)
class Decision:
    """What the model decided for one step of N active samplers."""

    flat_actions: torch.Tensor  # [N, A]
    log_probs: torch.Tensor  # [N, ...] as the distribution gives them
    values: torch.Tensor  # [N, 1]
    memory: Memory | None  # after the step
    output: ActorCriticOutput[Any]  # as the model returned it

    def select(self, keep: list[int]) -> Decision:
        """Returns the rows of the samplers in `keep`."""
        memory = None if self.memory is None else self.memory.sampler_select(keep)
        return Decision(self.flat_actions[keep], self.log_probs[keep], self.values[keep], memory, self.output)


def sample_actions(distributions: Any, observations: dict[str, Any]) -> Any:
    """Samples from the model's distributions."""
    return distributions.sample()


def notify_model(actor_critic: torch.nn.Module, keep: Sequence[int]) -> None:
    """Tells a model that keeps a state per sampler, after each step, which of the samplers it saw go on."""
    hook = getattr(actor_critic, "sampler_select", None)
    if hook is not None:
        hook(list(keep))


def _may_be_kept(storages: Collection[ExperienceStorage]) -> bool:
    """Whether a storage might keep the tensors it is given, whose memory the next step of the tasks overwrites."""
    return any(type(storage) is not RolloutBlockStorage for storage in storages)  # that one copies them


def _takes_truncation_values(storage: ExperienceStorage) -> bool:
    """Whether `add` of a storage has the optional argument `truncation_values`."""
    parameters = inspect.signature(storage.add).parameters
    return "truncation_values" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _require_endless(exhausted: Sequence[int]) -> None:
    if exhausted:
        raise NotImplementedError(
            f"Task sampler {exhausted[0]} ran out of tasks during training. Training needs samplers"
            " without an end: leave max_tasks unset in train_task_sampler_args."
        )


class RolloutCollector:
    """Acts in the tasks of one worker and adds every step to the storages of the current stage.

    Args:
        actor_critic: the model; its action space says how actions are flattened.
        vector_tasks: the task samplers, stepped together.
        device: where the model and the storages live.
        preprocessors: applied to the batched observations of every step, or None.
        choose_actions: picks actions, `[1, N, ...]` in the structure of the action space, from the model's
            distributions and the observations it saw; the default samples.
        stop_requested: asked before every step; once it answers True, `StopRequested` is raised.
        num_workers: training workers that share the cores with this one, itself included.
    """

    def __init__(
        self,
        actor_critic: ActorCriticModel[Any],
        vector_tasks: VectorTasks,
        device: torch.device,
        preprocessors: SensorPreprocessorGraph | None = None,
        choose_actions: Callable[[Any, dict[str, Any]], Any] = sample_actions,
        stop_requested: Callable[[], bool] = lambda: False,
        num_workers: int = 1,
    ) -> None:
        self.actor_critic = actor_critic
        self.vector_tasks = vector_tasks
        self.device = device
        self.preprocessors = preprocessors
        self.choose_actions = choose_actions
        self.stop_requested = stop_requested
        self.num_workers = num_workers
        self._episodes: list[FinishedEpisode] = []

    def pop_episodes(self) -> list[FinishedEpisode]:
        """Returns the episodes that ended since the last call, oldest first."""
        episodes, self._episodes = self._episodes, []
        return episodes

    def initialize(self, storages: Collection[ExperienceStorage]) -> None:
        """Gives storages that enter use the current observations as their first row."""
        observations = self.to_model_inputs(self.vector_tasks.observe())
        if _may_be_kept(storages):
            observations = clone_recursively(observations)
        for storage in storages:
            storage.to(self.device)
            storage.initialize(
                observations=observations,
                num_samplers=self.vector_tasks.num_unpaused_tasks,
                recurrent_memory_specification=self.actor_critic.recurrent_memory_specification,
                action_space=self.actor_critic.action_space,
            )

    def collect(
        self,
        rollout_storage: RolloutStorage,
        storages: Sequence[ExperienceStorage],
        num_steps: int,
        *,
        bootstrap_truncated: bool = False,
        on_step: Callable[[int], None] = lambda steps: None,
    ) -> int:
        """Steps every sampler `num_steps` times.

        Args:
            rollout_storage: the storage that says what the model sees next.
            storages: all storages of the stage, that one included; each is given every step.
            num_steps: T, steps of each sampler.
            bootstrap_truncated: also store V(last observation) of episodes that a limit ended.
            on_step: called with the number of environment steps taken since the last call.

        Returns:
            The environment steps taken: T times the number of samplers.

        Raises:
            StopRequested: somebody asked to stop, between two steps (or two chunks of a sampler process).
            NonFiniteError: an observation or a reward is NaN or infinite.
            ExperimentConfigError: `bootstrap_truncated`, and the rollout storage does not support it.
            NotImplementedError: a sampler ran out of tasks, which training cannot handle.
        """
        deferred = None
        if self.choose_actions is sample_actions and self.preprocessors is None:
            deferred = deferred_policy(self.actor_critic, storages, num_steps)
        if deferred is None:
            self._collect_with_model(rollout_storage, storages, num_steps, bootstrap_truncated, on_step)
        else:
            policy, storage = deferred
            if isinstance(policy, ReparameterizedPolicy) and self._processes_can_collect():
                chunks = self._checked_chunks(make_rollout_request(policy, storage, num_steps), on_step)
                truncated = collect_from_processes(storage, chunks, num_steps)
            else:
                truncated = collect_in_lockstep(policy, storage, self._task_stepper(on_step), num_steps)
            add_predictions(self.actor_critic, storage, truncated if bootstrap_truncated else (), self.num_workers)
        return num_steps * self.vector_tasks.num_unpaused_tasks

    def _collect_with_model(
        self,
        rollout_storage: RolloutStorage,
        storages: Sequence[ExperienceStorage],
        num_steps: int,
        bootstrap_truncated: bool,
        on_step: Callable[[int], None],
    ) -> None:
        """Collects a rollout with a forward pass of the model at every step; arguments as for `collect`."""
        if bootstrap_truncated and not _takes_truncation_values(rollout_storage):
            raise ExperimentConfigError(
                f"{type(rollout_storage).__name__} cannot bootstrap truncated episodes.",
                "bootstrap_truncated=True, and its add() takes no truncation_values",
                "add that argument, see RolloutBlockStorage, or leave the setting out.",
            )
        step_tasks = self._task_stepper(on_step)
        for _ in range(num_steps):
            decision = self.act(rollout_storage)
            batch = step_tasks(decision.flat_actions)
            has_truncated = bootstrap_truncated and bool(batch.final_observations)
            values = self.truncation_values(batch, decision) if has_truncated else None  # [N, 1]
            self.store(storages, decision, batch, values)

    def _task_stepper(self, on_step: Callable[[int], None]) -> Callable[[torch.Tensor | np.ndarray], StepBatch]:
        """Returns a function that takes one step of a rollout after another, and checks what the tasks answer."""
        step_index = itertools.count()

        def step_tasks(flat_actions: torch.Tensor | np.ndarray) -> StepBatch:
            if self.stop_requested():
                raise StopRequested
            batch = self.vector_tasks.step_batch(flat_actions)
            _require_endless(batch.exhausted)
            require_finite_rewards(batch.rewards[None], next(step_index))
            self._episodes.extend(batch.episodes)
            notify_model(self.actor_critic, range(len(batch.rewards)))
            on_step(len(batch.rewards))
            return batch

        return step_tasks

    def _processes_can_collect(self) -> bool:
        """Whether there are sampler processes to collect a rollout, and the model need not be told of each step."""
        return self.vector_tasks.can_collect_rollouts and not hasattr(self.actor_critic, "sampler_select")

    def _checked_chunks(self, request: RolloutRequest, on_step: Callable[[int], None]) -> Generator[RolloutChunk]:
        """Yields the chunks of a rollout that sampler processes collect, after checking each."""
        episodes: list[tuple[int, FinishedEpisode]] = []
        if self.stop_requested():
            raise StopRequested
        with closing(self.vector_tasks.collect_rollout(request)) as chunks:
            for chunk in chunks:
                if self.stop_requested():
                    raise StopRequested
                _require_endless(chunk.exhausted)
                require_finite_rewards(chunk.rewards, chunk.first_step, chunk.samplers.start, request.noise.shape[1])
                episodes.extend(chunk.episodes)
                on_step(chunk.rewards.size)
                yield chunk
        episodes.sort(key=lambda ended: (ended[0], ended[1].sampler))  # the order in which lockstep would report them
        self._episodes.extend(episode for _, episode in episodes)

    @torch.no_grad()
    def act(self, rollout_storage: RolloutStorage) -> Decision:
        """Runs the model on the newest row of `rollout_storage` and chooses actions."""
        agent_input = rollout_storage.agent_input_for_next_step()
        with self._explaining(agent_input["observations"]):
            output, memory = self.actor_critic(**agent_input)
            actions = self.choose_actions(output.distributions, agent_input["observations"])
        flat_actions = spaces_utils.flatten(self.actor_critic.action_space, actions)[0]  # [N, A]
        log_probs = output.distributions.log_prob(actions)[0]  # [N, ...]
        return Decision(flat_actions, log_probs, output.values[0], memory, output)

    def store(
        self,
        storages: Sequence[ExperienceStorage],
        decision: Decision,
        batch: StepBatch,
        truncation_values: torch.Tensor | None = None,
    ) -> None:
        """Adds one step of the active samplers to every storage.

        Args:
            storages: of the stage.
            decision: what the model decided.
            batch: what the tasks answered.
            truncation_values: what the method of that name returns, for storages that take it; None: nothing to add.
        """
        rewards = torch.from_numpy(batch.rewards).to(self.device).unsqueeze(-1)  # [N, 1]
        masks = torch.from_numpy(np.logical_not(batch.dones).astype(np.float32)).to(self.device).unsqueeze(-1)  # [N, 1]
        observations = self.to_model_inputs(batch.observations)
        if _may_be_kept(storages):
            observations, rewards = clone_recursively(observations), rewards.clone()
        for storage in storages:
            extra = {}
            if truncation_values is not None and _takes_truncation_values(storage):
                extra["truncation_values"] = truncation_values
            storage.add(
                observations=observations,
                memory=decision.memory,
                actions=decision.flat_actions,
                action_log_probs=decision.log_probs,
                value_preds=decision.values,
                rewards=rewards,
                masks=masks,
                **extra,
            )

    @contextmanager
    def _explaining(self, observations: dict[str, Any]) -> Iterator[None]:
        """Names the cause of the errors with which models and distributions answer what they cannot work with.

        Torch's distributions answer NaN parameters with a ValueError, models a missing observation with a KeyError and
        one of another size than expected with a RuntimeError.
        """
        try:
            yield
        except KeyError as error:
            name = error.args[0] if error.args else None
            expected = getattr(getattr(self.actor_critic, "observation_space", None), "spaces", {})
            if name in observations or name not in expected:
                raise
            raise missing_observation(str(name), observations) from error
        except ValueError as error:
            blamed = explain_non_finite(observations, self.actor_critic, str(error))
            if blamed is None:
                raise
            raise blamed from error
        except RuntimeError as error:
            graph = self.preprocessors
            spaces = self.vector_tasks.observation_space if graph is None else graph.observation_spaces
            explained = explain_misfit(observations, spaces, str(error))
            if explained is None:
                raise
            raise explained from error

    @torch.no_grad()
    def next_value(self, rollout_storage: RolloutStorage) -> torch.Tensor:
        """Returns V of the observation after the last step, `[1, N, 1]`."""
        agent_input = rollout_storage.agent_input_for_next_step()
        with self._explaining(agent_input["observations"]):
            output, _ = self.actor_critic(**agent_input)
        return output.values

    @torch.no_grad()
    def truncation_values(self, batch: StepBatch, decision: Decision) -> torch.Tensor:
        """Returns V of the last observation of each episode that a limit ended, 0 for the others, `[N, 1]`."""
        truncated = sorted(batch.final_observations)
        last_observations = [batch.final_observations[i] for i in truncated]
        observations = add_step_dim(self.to_model_inputs(stack_observations(last_observations)))  # leaves [1, n, O...]
        actions = decision.flat_actions[truncated].unsqueeze(0)  # [1, n, A]
        with self._explaining(observations):
            output, _ = self.actor_critic(
                observations=observations,
                memory=None if decision.memory is None else decision.memory.sampler_select(truncated),
                prev_actions=spaces_utils.unflatten(self.actor_critic.action_space, actions),
                masks=torch.ones(1, len(truncated), 1, device=self.device),
            )
        values = torch.zeros(len(batch.rewards), 1, device=self.device)  # [N, 1]
        values[truncated] = output.values[0]
        return values

    def to_model_inputs(self, observations: dict[str, Any]) -> dict[str, Any]:
        """Turns arrays `[N, O...]` into tensors on the device and runs the preprocessors."""
        tensors = to_tensors(observations, self.device)
        return tensors if self.preprocessors is None else self.preprocessors.get_observations(tensors)
