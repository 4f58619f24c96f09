"""What goes wrong in the training process itself: full disks, NaNs, failing samplers. Nothing saved is lost."""

import errno
import os

import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync import engine, rollout_engine, update
from allenact.algorithms.onpolicy_sync.checkpointing import load_checkpoint
from allenact.base_abstractions.sensor import SensorSuite
from allenact.embodiedai.models.basic_models import LinearActorCritic
from allenact.errors import NonFiniteError, RunError, TaskWorkerError
from allenact.testing.experiments import ToyExperiment
from allenact.testing.tasks import CopyTask, ToySensor, ToyTaskSampler


def fail_to_write(monkeypatch, *which):
    """Makes the disk full for the saves of these numbers (from 1)."""
    fsync, count = os.fsync, 0

    def full(descriptor):
        nonlocal count
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            count += 1
            if count in which:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)


def steps_of(run):
    return [load_checkpoint(path).total_steps for path in run.checkpoints]


@pytest.mark.faults("disk full while a checkpoint is written", "warning, training goes on", "that checkpoint")
def test_training_goes_on_if_a_checkpoint_cannot_be_written(train, monkeypatch, caplog, same_state):
    whole = train(ToyExperiment())
    fail_to_write(monkeypatch, 1)
    with caplog.at_level("WARNING", logger="allenact"):
        run = train(ToyExperiment())
    assert "cannot be written, training goes on without it" in caplog.text
    assert "No space left on device" in caplog.text
    assert steps_of(run) == [128], "a file that is not whole is not announced"
    assert os.listdir(run.checkpoints[0].parent) == [run.checkpoints[0].name]
    same_state(run.parameters, whole.parameters)


@pytest.mark.faults("disk full at the last checkpoint", "stops, status 1", "what was done since the last checkpoint")
def test_the_last_checkpoint_has_to_be_written(train, monkeypatch, tmp_path):
    fail_to_write(monkeypatch, 2)
    with pytest.raises(RunError, match=r"the last checkpoint cannot be written(.|\n)*No space left"):
        train(ToyExperiment())
    (left,) = tmp_path.glob("run*/*")
    assert load_checkpoint(left).total_steps == 64


class Failing(ToyTaskSampler):
    """Fails when it is asked for its fourth task."""

    def next_task(self, force_advance_scene=False):
        if self.tasks_drawn == 3:
            raise RuntimeError("the simulator is out of fuel")
        return super().next_task(force_advance_scene)


class FailingToy(ToyExperiment):
    sampler = Failing

    def make_sampler_fn(self, **kwargs):
        return self.sampler(self.task_class, **kwargs)


@pytest.mark.faults("task raises", "stops with the original traceback, status 1, saves first", "the current rollout")
def test_a_failure_saves_what_was_there_before_the_rollout(train, tmp_path, same_state):
    """And training goes on from there once the reason is gone."""
    whole = train(ToyExperiment())
    with pytest.raises(TaskWorkerError, match="out of fuel"):
        train(FailingToy(), backend="process")
    (saved,) = (tmp_path / "run2").glob("*0032.pt")
    rest = train(ToyExperiment(), checkpoint=saved)
    same_state(whole.parameters, rest.parameters)


@pytest.mark.faults(
    "sampler fails again and again, with --enable_crash_recovery",
    "restarted and counted; stops after 10",
    "the current rollout and its episodes",
)
def test_restarts_are_counted_and_end(train, monkeypatch):
    monkeypatch.setattr(rollout_engine, "MOST_SAMPLER_RESTARTS", 2)
    packages = []
    with pytest.raises(TaskWorkerError, match="out of fuel"):
        train(FailingToy(stage_steps=(640,)), backend="process", try_restart_after_task_error=True, packages=packages)
    counted = [package.scalars.get("train-misc/sampler_restarts") for package in packages]
    assert counted[0] is None
    assert counted[-1] == [2.0, 1.0]
    assert packages[-1].scalars["train-misc/dropped_episodes"] == [8.0, 1.0]


# What tasks return


class OddSensor(ToySensor):
    """Returns something else from its tenth observation on."""

    def __init__(self, odd):
        super().__init__(4)
        self.odd, self.seen = odd, 0

    def get_observation(self, env, task, *args, **kwargs):
        self.seen += 1
        observation = super().get_observation(env, task)
        return observation if self.seen < 10 else self.odd(observation)


class OddTask(CopyTask):
    """Has a reward that is no number that can be learned from."""

    def play(self, action):
        return super().play(action) + (np.nan if self.env.rng.random() < 0.1 else 0.0)


class OddToy(ToyExperiment):
    def __init__(self, odd=None, **kwargs):
        super().__init__(num_eval_samplers=0, **kwargs)
        self.odd = odd
        if odd is None:
            self.task_class = OddTask

    @property
    def sensors(self):
        return super().sensors if self.odd is None else [OddSensor(self.odd)]


def raises(observation):
    raise RuntimeError("the camera is unplugged")


ODD = {
    "NaN": (lambda seen: seen * np.float32("nan"), 'sensor "toy" returned NaN or infinity(.|\n)*sampler 0 of 4, step'),
    "infinity": (lambda seen: seen + np.float32("inf"), 'sensor "toy" returned NaN or infinity'),
    "another shape": (
        lambda seen: seen[:2],
        r'sensor "toy" of sampler 0 (.|\n)*expected shape \[4\] .*got shape \[2\]',
    ),
    "another type": (lambda seen: seen.astype(np.float64), r"float32, got shape \[4\] of float64"),
    "an exception": (raises, "the camera is unplugged"),
}


@pytest.mark.faults(
    "sensor returns or raises", "stops, status 1; names sensor, sampler and entries", "the current rollout"
)
@pytest.mark.parametrize("odd", ODD)
def test_what_a_sensor_must_not_return(odd, train):
    function, message = ODD[odd]
    with pytest.raises((RunError, RuntimeError), match=message):
        train(OddToy(function))


class ClippingModel(LinearActorCritic):
    """Cannot tell an infinite observation from a large one."""

    def forward(self, observations, *args, **kwargs):
        return super().forward({key: value.clamp(-5, 5) for key, value in observations.items()}, *args, **kwargs)


class ClippingToy(OddToy):
    def create_model(self, **kwargs):
        return ClippingModel("toy", self.action_space, SensorSuite(self.sensors).observation_spaces)


@pytest.mark.faults(
    "sensor returns infinity, which the model hides",
    "stops, status 1; names sensor, sampler and entries",
    "the current rollout",
)
def test_what_a_model_hides(train):
    with pytest.raises(NonFiniteError, match=r'sensor "toy" returned NaN or infinity(.|\n)*step \d of 8; entries \[0'):
        train(ClippingToy(ODD["infinity"][0]))


@pytest.mark.faults("task returns a reward that is NaN", "stops, status 1; names the samplers", "the current rollout")
def test_what_a_task_must_not_return(train):
    with pytest.raises(
        NonFiniteError, match=r"reward that is NaN or infinite(.|\n)*samplers \[\d\] of 4, step \d of the rollout"
    ):
        train(OddToy())


# NaNs


def poison_gradients(monkeypatch, poisoned):
    """Makes the gradient of the mini-batches NaN whose numbers (from 1) `poisoned` picks."""
    clip, count = torch.nn.utils.clip_grad_norm_, 0

    def clip_poisoned(parameters, *args):
        nonlocal count
        count += 1
        if poisoned(count):
            parameters[0].grad[0] = torch.nan
        return clip(parameters, *args)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip_poisoned)


@pytest.mark.faults("gradient is NaN", "mini-batch skipped and counted", "that mini-batch")
def test_a_mini_batch_without_a_finite_gradient_is_skipped_and_counted(train, monkeypatch, caplog):
    poison_gradients(monkeypatch, lambda count: count in (3, 4, 9))
    with caplog.at_level("WARNING", logger="allenact"):
        run = train(ToyExperiment())
    assert all(torch.isfinite(value).all() for value in run.parameters.values())
    counted = [package.scalars["train-misc/skipped_mini_batches"] for package in run.packages]
    assert counted == [[2.0, 1.0], [2.0, 1.0], [3.0, 1.0], [3.0, 1.0]]
    assert caplog.text.count("A mini-batch is skipped") == 2, "one line for each series"
    losses = [package.scalars["train-onpolicy-losses/total_loss"][0] for package in run.packages]
    assert torch.isfinite(torch.tensor(losses)).all()


def test_a_healthy_run_has_nothing_to_count(train):
    run = train(ToyExperiment())
    assert not [tag for package in run.packages for tag in package.scalars if "skipped" in tag or "restart" in tag]


@pytest.mark.faults(
    "gradient stays NaN", "stops after 10 mini-batches, status 1", "what was done since the last checkpoint"
)
def test_too_many_in_a_row_end_the_run_and_leave_the_last_good_checkpoint(train, monkeypatch, tmp_path):
    poison_gradients(monkeypatch, lambda count: count > 10)
    monkeypatch.setattr(update, "MOST_SKIPPED_IN_A_ROW", 5)
    with pytest.raises(NonFiniteError, match="in 5 mini-batches in a row"):
        train(ToyExperiment())
    (left,) = tmp_path.glob("run1/*")
    state = load_checkpoint(left)
    assert state.total_steps == 64
    assert all(torch.isfinite(value).all() for value in state.model_state_dict.values())


@pytest.mark.faults(
    "parameters become infinite", "stops, status 1, saves nothing", "what was done since the last checkpoint"
)
@pytest.mark.parametrize("mini_batch", [8, 4], ids=["before a checkpoint", "before a rollout that fails with them"])
def test_weights_that_are_not_finite_are_never_saved(mini_batch, train, monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "_LONG_UPDATE_S", -1.0)  # the weights of before each rollout are kept
    step, count = torch.optim.Adam.step, 0

    def overflow(self, *args, **kwargs):
        nonlocal count
        count += 1
        result = step(self, *args, **kwargs)
        if count == mini_batch:  # there are four for each rollout, and a checkpoint for every second one
            self.param_groups[0]["params"][0].data.fill_(torch.inf)
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", overflow)
    with pytest.raises(NonFiniteError, match="holds NaN or infinity"):
        train(ToyExperiment())
    assert not list(tmp_path.glob("run1/*"))


class PoisonedModel(LinearActorCritic):
    """Keeps statistics that become NaN, and a mask of infinities, which may be meant."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("statistics", torch.zeros(3))
        self.register_buffer("mask", torch.full((2,), -torch.inf))
        self.rollouts = 0

    def update_statistics(self, observations, returns, sum_over_workers):
        self.rollouts += 1
        if self.rollouts == 3:
            self.statistics[1] = torch.nan


class PoisonedToy(ToyExperiment):
    def create_model(self, **kwargs):
        return PoisonedModel("toy", self.action_space, SensorSuite(self.sensors).observation_spaces)


def test_statistics_that_are_not_finite_are_never_saved(train, tmp_path):
    with pytest.raises(NonFiniteError, match='buffer "statistics" holds NaN'):
        train(PoisonedToy())
    (left,) = tmp_path.glob("run1/*")
    assert load_checkpoint(left).total_steps == 64
