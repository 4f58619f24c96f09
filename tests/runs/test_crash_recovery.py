"""A task sampler that fails in its worker process: the run ends, or starts it anew if asked to."""

import os
import signal
from pathlib import Path

import pytest
import torch

from allenact.algorithms.onpolicy_sync.checkpointing import load_checkpoint
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.base_abstractions.sensor import SensorSuite
from allenact.errors import TaskWorkerError
from allenact.testing.experiments import ToyExperiment
from allenact.testing.tasks import PushRightTask, ToyTaskSampler
from allenact_plugins.gym_plugin.gym_models import MemorylessActorCritic


class FragileSampler(ToyTaskSampler):
    """Fails at its third task as often as `folder` has room for another mark."""

    def __init__(self, *args, folder: Path, crashes: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.folder, self.crashes = folder, crashes

    def next_task(self, force_advance_scene=False):
        marks = len(list(self.folder.iterdir()))
        if self.tasks_drawn == 2 and marks < self.crashes:
            (self.folder / f"crash{marks}").touch()
            raise RuntimeError("the simulator is out of fuel")
        return super().next_task(force_advance_scene)


class Fragile(ToyExperiment):
    """One training sampler, which crashes `crashes` times."""

    def __init__(self, folder: Path, crashes: int, **kwargs):
        super().__init__(**{"num_samplers": 1, "num_steps": 32, "num_mini_batch": 1, **kwargs})
        self.folder, self.crashes = folder, crashes

    def make_sampler_fn(self, **kwargs):
        return FragileSampler(self.task_class, folder=self.folder, crashes=self.crashes, **kwargs)


@pytest.fixture
def marks(tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def test_a_crash_ends_the_run(train, marks):
    with pytest.raises(TaskWorkerError, match="the simulator is out of fuel"):
        train(Fragile(marks, crashes=1), backend="process")


def test_a_crash_is_survived_if_asked_to(train, marks, caplog):
    with caplog.at_level("WARNING", logger="allenact"):
        run = train(Fragile(marks, crashes=1), backend="process", try_restart_after_task_error=True)
    assert len(list(marks.iterdir())) == 1
    assert run.trainer.training_pipeline.total_steps == 128
    assert [package.training_steps for package in run.packages] == [32, 64, 96, 128]
    assert [package.storage_experiences["onpolicy"] for package in run.packages] == [32, 64, 96, 128]
    episodes = [episode for package in run.packages for episode in package.metrics]
    assert len(episodes) == 128 // 5, "those of the rollout that was given up do not count"
    assert "restarted" in caplog.text


def test_two_crashes_in_one_rollout_end_the_run(train, marks):
    with pytest.raises(TaskWorkerError, match="the simulator is out of fuel"):
        train(Fragile(marks, crashes=2), backend="process", try_restart_after_task_error=True)


def test_teacher_forcing_goes_on_after_a_crash(train, marks):
    config = Fragile(marks, crashes=1, imitate=True)
    run = train(config, backend="process", try_restart_after_task_error=True)
    for package in run.packages:
        assert "train-misc/teacher_ratio/enforced" in package.scalars


def test_a_run_can_be_resumed_after_it_crashed(train, marks):
    """What was saved before is all that counts."""
    healthy = Fragile(marks, crashes=0, save_interval=32)
    checkpoint = train(healthy, backend="process").checkpoints[0]
    rest = train(Fragile(marks, crashes=1), checkpoint=checkpoint, backend="process", try_restart_after_task_error=True)
    assert rest.trainer.training_pipeline.total_steps == 128


class OneFragile(Fragile):
    """Four training samplers in two processes, the last of which crashes."""

    def __init__(self, folder: Path, crashes: int, **kwargs):
        super().__init__(folder, crashes, **{"num_samplers": 4, "num_steps": 8, "num_eval_samplers": 0, **kwargs})

    def train_task_sampler_args(self, process_ind, *args, **kwargs):
        return {**super().train_task_sampler_args(process_ind, *args, **kwargs), "fragile": process_ind == 3}

    def create_model(self, **kwargs):
        if self.task_class is not PushRightTask:
            return super().create_model(**kwargs)
        spaces = SensorSuite(self.sensors).observation_spaces  # with this model processes collect by themselves
        return MemorylessActorCritic("toy", self.action_space, spaces)

    def make_sampler_fn(self, *, fragile=False, **kwargs):
        crashes = self.crashes if fragile else 0
        return FragileSampler(self.task_class, folder=self.folder, crashes=crashes, **kwargs)


IN_TWO = {"backend": "process", "max_sampler_processes": 2, "try_restart_after_task_error": True}


@pytest.fixture
def rollouts(monkeypatch):
    """Collects actions, rewards and masks of every rollout that is learned from, [T, N, ...]."""
    seen = []
    compute = RolloutBlockStorage.before_updates

    def watch(self, **kwargs):
        compute(self, **kwargs)
        seen.append([rows.clone() for rows in (self.actions, self.rewards, self.masks)])

    monkeypatch.setattr(RolloutBlockStorage, "before_updates", watch)
    return seen


@pytest.mark.faults(
    "one of two sampler processes is lost in a rollout, with --enable_crash_recovery",
    "replaced and counted; the rollout begins anew, the same for the other samplers",
    "its episodes",
)
@pytest.mark.parametrize("task", ["copy", "remember", "push_right"])
def test_only_what_was_lost_begins_anew(task, train, marks, rollouts):
    """The other samplers do once more what they did, in the rollout of the crash; nothing of theirs is missing."""
    kwargs = {"task": task, "recurrent": task == "remember"}
    train(OneFragile(marks, crashes=0, **kwargs), **IN_TWO)
    whole = [*rollouts]
    rollouts.clear()
    run = train(OneFragile(marks, crashes=1, **kwargs), **IN_TWO)
    assert len(rollouts) == len(whole) == 4
    crashed = next(i for i, (a, b) in enumerate(zip(whole, rollouts, strict=True)) if not _same(a, b))
    assert _same(whole[crashed], rollouts[crashed], [0, 1])
    assert not _same(whole[crashed], rollouts[crashed], [2, 3])
    masks = rollouts[crashed][2]
    assert masks[0, 2:].eq(0).all(), "new episodes"
    assert masks[0, :2].eq(1).all() or crashed == 0
    assert run.packages[-1].scalars["train-misc/sampler_restarts"] == [1.0, 1.0]
    assert run.packages[-1].scalars["train-misc/dropped_episodes"] == [2.0, 1.0], "of one process with two samplers"


def _same(a, b, samplers=(0, 1, 2, 3)):
    return all(torch.equal(x[:, list(samplers)], y[:, list(samplers)]) for x, y in zip(a, b, strict=True))


class Unsaved(FragileSampler):
    """Cannot be saved, like the samplers of many simulators."""

    def state_dict(self, task):
        return None


class UnsavedToy(OneFragile):
    def make_sampler_fn(self, *, fragile=False, **kwargs):
        return Unsaved(self.task_class, folder=self.folder, crashes=self.crashes if fragile else 0, **kwargs)


@pytest.mark.faults(
    "the same, with samplers that cannot be saved",
    "replaced and counted; the other samplers play on",
    "its episodes, and what the rollout had gathered",
)
def test_episodes_that_cannot_be_saved_go_on(train, marks):
    """Those of the other process are as long as ever."""
    run = train(UnsavedToy(marks, crashes=1), **IN_TWO)
    episodes = [episode for package in run.packages for episode in package.metrics]
    assert {episode["ep_length"] for episode in episodes} == {5}
    assert run.packages[-1].scalars["train-misc/dropped_episodes"] == [2.0, 1.0]


def kill_sampler_process(trainer, after):
    """Kills a sampler process while the policy learns from that rollout, when nobody waits for the samplers."""
    update, count = trainer.updater.update, 0

    def update_and_kill(*args, **kwargs):
        nonlocal count
        count += 1
        if count == after:
            os.kill(trainer.vector_tasks._pool._processes[0].pid, signal.SIGKILL)
        return update(*args, **kwargs)

    trainer.updater.update = update_and_kill


@pytest.mark.faults(
    "sampler process killed during an update (SIGKILL)", "stops, status 1, saves first", "the running episodes"
)
def test_a_loss_between_two_rollouts_is_saved_first(train, tmp_path):
    with pytest.raises(TaskWorkerError, match="died while answering"):
        train(ToyExperiment(save_interval=1000), backend="process", prepare=lambda t: kill_sampler_process(t, 3))
    (saved,) = (tmp_path / "run1").iterdir()
    state = load_checkpoint(saved)
    assert state.total_steps == 96
    assert state.sampler_states == [None] * 4
    assert train(ToyExperiment(), checkpoint=saved).trainer.training_pipeline.total_steps == 128


@pytest.mark.faults(
    "sampler process killed during an update, with --enable_crash_recovery",
    "replaced and counted, training goes on",
    "its episodes",
)
def test_a_loss_between_two_rollouts_is_survived(train):
    run = train(ToyExperiment(task="remember", recurrent=True), **IN_TWO, prepare=lambda t: kill_sampler_process(t, 3))
    assert run.packages[-1].scalars["train-misc/dropped_episodes"] == [2.0, 1.0]
    assert [package.training_steps for package in run.packages] == [32, 64, 96, 128]


def test_where_it_has_no_effect_is_said(train, caplog):
    train(ToyExperiment(stage_steps=(32,)), backend="serial", try_restart_after_task_error=True)
    assert "--enable_crash_recovery has no effect" in caplog.text
