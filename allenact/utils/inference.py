"""InferenceAgent: a trained agent for one task at a time, outside of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from allenact.algorithms.onpolicy_sync.checkpointing import load_checkpoint, load_model_weights
from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel
from allenact.algorithms.onpolicy_sync.storage import RolloutStorage
from allenact.base_abstractions.experiment_config import MachineParams
from allenact.base_abstractions.misc import Memory
from allenact.base_abstractions.preprocessor import SensorPreprocessorGraph
from allenact.errors import CheckpointError, ExperimentConfigError
from allenact.utils import spaces_utils
from allenact.utils.tensor_utils import batch_observations

if TYPE_CHECKING:
    from allenact.base_abstractions.experiment_config import ExperimentConfig


@dataclass(kw_only=True)
class InferenceAgent:
    """Turns observations into actions, remembering what the model needs from one step to the next.

    Example::

        agent = InferenceAgent.from_experiment_config(config, device=torch.device("cpu"), checkpoint_path=path)
        agent.reset()
        observations = task.get_observations()
        while not task.is_done():
            observations = task.step(agent.act(observations=observations)).observation

    Attributes:
        actor_critic: the model; put into evaluation mode and onto `device`.
        rollout_storage: keeps previous action and recurrent state.
        device: where the model runs.
        sensor_preprocessor_graph: applied to the observations, None if there are no preprocessors.
        steps_before_rollout_refresh: steps after which the storage is emptied, so that its size stays bounded.
        memory: recurrent state after the last step.
        steps_taken_in_task: steps since `reset`.
        last_action_flat: [1, 1, A] the last action, flattened.
        has_initialized: whether a task has begun.
        deterministic: take the most probable action (the mode of the distribution) instead of a sample.
    """

    actor_critic: ActorCriticModel[Any]
    rollout_storage: RolloutStorage
    device: torch.device
    sensor_preprocessor_graph: SensorPreprocessorGraph | None
    steps_before_rollout_refresh: int = 128
    memory: Memory | None = None
    steps_taken_in_task: int = 0
    last_action_flat: torch.Tensor | None = None
    has_initialized: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        self.actor_critic.eval()
        self.actor_critic.to(device=self.device)
        self.rollout_storage.to(self.device)
        if self.sensor_preprocessor_graph is not None:
            self.sensor_preprocessor_graph.to(self.device)

    @classmethod
    def from_experiment_config(
        cls,
        exp_config: ExperimentConfig,
        device: torch.device,
        checkpoint_path: str | None = None,
        model_state_dict: Mapping[str, Any] | None = None,
        mode: str = "test",
        deterministic: bool = False,
    ) -> Self:
        """Builds the agent of an experiment.

        Args:
            exp_config: the experiment.
            device: where the model runs.
            checkpoint_path: file with the weights. Without this and `model_state_dict` they are fresh.
            model_state_dict: the weights, or a whole checkpoint that contains them.
            mode: "train", "valid" or "test": whose preprocessors are used.
            deterministic: as for the class.

        Raises:
            CheckpointError: weights are given twice, cannot be read, or belong to another model.
            ExperimentConfigError: the experiment's training pipeline has no rollout storage.
        """
        if checkpoint_path is not None and model_state_dict is not None:
            raise CheckpointError(
                "the weights are given twice.",
                given=f"checkpoint_path={checkpoint_path!r} and model_state_dict",
                do="pass one of them.",
            )
        rollout_storage = exp_config.training_pipeline().rollout_storage
        if rollout_storage is None:
            raise ExperimentConfigError(
                "an InferenceAgent needs a rollout storage.",
                given=f"the training pipeline of {type(exp_config).__name__} has none",
                do="add a RolloutBlockStorage to its named_storages.",
            )
        machine_params = MachineParams.instance_from(exp_config.machine_params(mode))
        graph = machine_params.sensor_preprocessor_graph
        actor_critic: Any = exp_config.create_model(sensor_preprocessor_graph=graph)
        if checkpoint_path is not None:
            model_state_dict = load_checkpoint(checkpoint_path).model_state_dict
        if model_state_dict is not None:
            weights = model_state_dict.get("model_state_dict", model_state_dict)
            load_model_weights(actor_critic, weights, checkpoint_path or "model_state_dict")
        return cls(
            actor_critic=actor_critic,
            rollout_storage=rollout_storage,
            device=device,
            sensor_preprocessor_graph=graph,
            deterministic=deterministic,
        )

    def reset(self) -> None:
        """Begins a new task; the next `act` sees the first observation of an episode."""
        self.has_initialized = False
        self.steps_taken_in_task = 0
        self.memory = None
        self.last_action_flat = None

    @torch.no_grad()
    def act(self, observations: Mapping[str, Any]) -> Any:
        """Returns the action for one observation, as a plain Python value for `Task.step`.

        Args:
            observations: uuid -> observation, as `Task.get_observations` and `Task.step` return them.
        """
        batch: Any = batch_observations([dict(observations)], device=self.device)  # leaves [1, O...]
        if self.sensor_preprocessor_graph is not None:
            batch = self.sensor_preprocessor_graph.get_observations(batch)
        self._remember(batch)

        output, self.memory = self.actor_critic(**self.rollout_storage.agent_input_for_next_step())
        distribution = output.distributions
        action = distribution.mode() if self.deterministic else distribution.sample()
        action_space = self.actor_critic.action_space
        self.last_action_flat = spaces_utils.flatten(action_space, action)  # [1, 1, A]
        self.steps_taken_in_task += 1
        return spaces_utils.action_list(action_space, self.last_action_flat)[0]

    def _remember(self, batch: dict[str, Any]) -> None:
        """Puts an observation, and what the model did before it, into the storage."""
        if not self.has_initialized or self.last_action_flat is None:
            self.rollout_storage.initialize(
                observations=batch,
                num_samplers=1,
                recurrent_memory_specification=self.actor_critic.recurrent_memory_specification,
                action_space=self.actor_critic.action_space,
            )
            self.has_initialized = True
            return
        unused = torch.zeros(1, 1, device=self.device)  # [N, 1] what only learning would need
        self.rollout_storage.add(
            observations=batch,
            memory=self.memory,
            actions=self.last_action_flat[0],
            action_log_probs=unused,
            value_preds=unused,
            rewards=unused,
            masks=torch.ones(1, 1, device=self.device),
        )
        if self.steps_taken_in_task % self.steps_before_rollout_refresh == 0:
            self.rollout_storage.after_updates()
