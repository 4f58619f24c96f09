"""What is measured: the physics alone, and the training loop of an experiment brought to a given size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from gymnasium.spaces import Box

from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer
from allenact.algorithms.onpolicy_sync.tracking import LogPackage
from allenact.base_abstractions.experiment_config import ExperimentConfig
from allenact.pipeline.pipeline import TrainingPipeline
from allenact.utils.cores import usable_cores
from allenact_plugins.gym_plugin.gym_models import MemorylessActorCritic
from allenact_plugins.gym_plugin.mujoco_tasks import MUJOCO_TASKS, Fields
from benchmarks.common import Measurement, Turn
from projects.gym_baselines.experiments.mujoco.gym_mujoco_halfcheetah_ddppo import GymMuJoCoHalfCheetahConfig
from projects.gym_baselines.experiments.mujoco.gym_mujoco_humanoid_ddppo import GymMuJoCoHumanoidConfig
from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig
from projects.tutorials.gym_tutorial import GymTutorialExperimentConfig

EXPERIMENTS: dict[str, Callable[[], ExperimentConfig]] = {
    "Ant": GymMuJoCoTutorialExperimentConfig,
    "HalfCheetah": GymMuJoCoHalfCheetahConfig,
    "Humanoid": GymMuJoCoHumanoidConfig,
    "LunarLanderContinuous": GymTutorialExperimentConfig,
}
ENDLESS = 10**12  # environment steps of a pipeline that is not meant to end


def has_physics(task: str) -> bool:
    """Whether the physics of a task can be measured alone, and its samplers stepped as a batch."""
    return f"{task}-v2" in MUJOCO_TASKS


class Physics:
    """L, the limit: the engine's batch on all usable cores, actions drawn in advance, new episodes where they end.

    The model, the substeps, the ends of episodes and their first states are the task's own, so what remains of a
    training loop beside this is ours: observations, rewards, the model, the storage, learning.

    Args:
        task: a MuJoCo task of `EXPERIMENTS`.
        num_samplers: N.
        seconds: least length of a turn.
    """

    def __init__(self, task: str, num_samplers: int, seconds: float) -> None:
        import mujoco
        from mujoco.batch import Batch

        self.task = MUJOCO_TASKS[f"{task}-v2"]()
        self.seconds = seconds
        self.rng = np.random.default_rng(0)
        self.batch = Batch(self.task.model, num_samplers, usable_cores())
        self.no_stage = int(mujoco.mjtStage.mjSTAGE_NONE)
        # Only what the ends of episodes are seen in. More would have to be refreshed at every step.
        self.fields = Fields(**{name: self.batch.bind(name) for name in ("qpos", "qvel", "ctrl")})
        self.actions = self.rng.uniform(-1, 1, (256, *self.fields.ctrl.shape))  # [256, N, A] one after the other
        self.steps = np.zeros(num_samplers, dtype=np.int64)  # [N] of the current episodes
        self.begin(range(num_samplers))

    def begin(self, indices: Sequence[int] | range) -> None:
        """Starts new episodes."""
        for index in indices:
            qpos, qvel = self.task.initial_state(self.rng)
            self.batch.reset([index], stage=self.no_stage)
            self.fields.qpos[index], self.fields.qvel[index] = qpos, qvel
            self.batch.forward([index])
            self.steps[index] = 0

    def __call__(self) -> Measurement:
        """Returns environment steps per second."""
        turn, count = Turn(self.seconds), 0
        actions = itertools.cycle(self.actions)
        while turn.goes_on():
            self.fields.ctrl[:] = next(actions)
            self.batch.step(nstep=self.task.frame_skip)
            self.steps += 1
            over = self.task.terminated(self.fields) | (self.steps >= self.task.max_episode_steps)  # [N]
            if over.any():
                self.begin([int(index) for index in np.flatnonzero(over)])
            count += len(over)
        return {"physics": turn.rate(count)}

    def close(self) -> None:
        """Does nothing: the batch goes with this object."""


@dataclass(frozen=True)
class Size:
    """The sizes of a training loop.

    Whatever the number of samplers, the same number of rows is learned from, in mini-batches of the same size and
    as often: what differs between sizes is only how the experience is gathered.

    Attributes:
        num_samplers: N.
        rollout_rows: T * N, environment steps of a rollout.
        mini_batch_rows: environment steps of a mini-batch.
        passes: over each rollout.
        hidden: sizes of the model's hidden layers; None: those of the experiment.
    """

    num_samplers: int
    rollout_rows: int = 4096
    mini_batch_rows: int = 4096
    passes: int = 10
    hidden: tuple[int, ...] | None = None

    @property
    def num_steps(self) -> int:
        """T, at least 1."""
        return max(1, self.rollout_rows // self.num_samplers)

    @property
    def num_mini_batch(self) -> int:
        """Mini-batches of one pass, at least 1."""
        return max(1, self.num_steps * self.num_samplers // self.mini_batch_rows)


class Sized:
    """An experiment with other sizes; in everything else, the experiment.

    Args:
        experiment: what to train.
        size: replaces the experiment's own sizes.
    """

    def __init__(self, experiment: ExperimentConfig, size: Size) -> None:
        self.experiment = experiment
        self.size = size

    def __getattr__(self, name: str) -> Any:
        return getattr(self.experiment, name)

    def machine_params(self, mode: str = "train", **kwargs: Any) -> Any:
        """The experiment's, with N samplers."""
        params = cast("dict[str, Any]", self.experiment.machine_params(mode, **kwargs))
        return {**params, "nprocesses": self.size.num_samplers}

    def create_model(self, **kwargs: Any) -> Any:
        """The experiment's, or one with other hidden layers."""
        model = self.experiment.create_model(**kwargs)
        if self.size.hidden is None or not isinstance(model, MemorylessActorCritic):
            return model
        action_space = cast("Box", model.action_space)
        return MemorylessActorCritic(
            model.input_uuid, action_space, model.observation_space, mlp_hidden_dims=self.size.hidden
        )

    def training_pipeline(self, **kwargs: Any) -> TrainingPipeline:
        """The experiment's, cut as the size says, and without end or checkpoints."""
        pipeline = self.experiment.training_pipeline(**kwargs)
        settings, size = pipeline.training_settings, self.size
        settings.num_steps = size.num_steps
        settings.num_mini_batch = size.num_mini_batch
        settings.mini_batches_over = "samplers" if size.num_samplers >= size.num_mini_batch else "steps"
        settings.update_repeats = size.passes
        settings.save_interval = 0
        pipeline.pipeline_stages[0].max_stage_steps = ENDLESS
        return pipeline


class Training:
    """The training loop of an experiment as it is, let go for a while in each turn.

    Args:
        experiment: builds what to train, e.g. a value of `EXPERIMENTS`.
        size: replaces the experiment's own sizes.
        backend: "auto", "batched", "process" or "serial".
        seconds: least length of a turn; a turn ends after an update.
        name: prefix of what is measured; default: the backend.
    """

    def __init__(
        self,
        experiment: Callable[[], ExperimentConfig],
        size: Size,
        backend: str,
        seconds: float,
        name: str | None = None,
    ) -> None:
        config = cast("ExperimentConfig", Sized(experiment(), size))
        self.name = backend if name is None else name
        self.seconds = seconds
        self.phases: dict[str, float] = {}
        self.trainer = OnPolicyTrainer(config, seed=0, sampler_backend=backend, send=self._add_phases)
        self.pipeline = self.trainer.training_pipeline
        self.stage = self.pipeline.pipeline_stages[0]
        self.rows = size.num_steps * size.num_samplers
        self.description = self.trainer.vector_tasks.description

    def _add_phases(self, message: object) -> None:
        if isinstance(message, LogPackage):
            for phase, seconds in message.seconds.items():
                self.phases[phase] = self.phases.get(phase, 0.0) + seconds

    def __call__(self) -> Measurement:
        """Returns environment steps per second, of collecting alone and of the whole loop."""
        self.phases = {}
        turn, count = Turn(self.seconds), 0
        while turn.goes_on():
            self.stage.max_stage_steps = self.stage.steps_taken_in_stage + self.rows
            self.pipeline.current_stage_index = 0  # the stage, which was complete, has steps to take again
            self.trainer.run_pipeline()
            count += self.rows
        whole = turn.rate(count)
        return {f"{self.name} collect": count / self.phases["collect"], f"{self.name} whole": whole}

    def close(self) -> None:
        """Stops the samplers."""
        self.trainer.close()
