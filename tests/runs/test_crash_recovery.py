"""A task sampler that fails in its worker process: the run ends, or starts it anew if asked to."""

from pathlib import Path

import pytest

from allenact.errors import TaskWorkerError
from allenact.testing.experiments import ToyExperiment
from allenact.testing.tasks import ToyTaskSampler


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
