"""Signals, deaths and hangs in every process of a run: what it leaves, and that nothing of it lives on."""

import multiprocessing
import os
import signal
import time
from functools import partial

import psutil
import pytest

from allenact.algorithms.onpolicy_sync import supervision
from allenact.algorithms.onpolicy_sync.checkpointing import checkpoints_in, load_checkpoint
from allenact.algorithms.onpolicy_sync.losses.ppo import PPO
from allenact.errors import TaskWorkerError, WorkerError
from allenact.testing.experiments import ToyExperiment
from allenact.testing.tasks import ToyTaskSampler

pytestmark = pytest.mark.slow


class Trouble:
    """Makes trouble once, `problem()`, at the `count`-th time that its phase is reached in any process.

    Attributes:
        happened: when it did, seconds since the epoch; None: not yet.
    """

    def __init__(self, folder, phase, problem, count=1):
        self.folder, self.phase, self.problem, self.count = folder, phase, problem, count

    def reached(self, phase):
        if phase != self.phase or self.happened is not None:
            return
        with open(self.folder / "reached", "a") as file:
            file.write("x")
        if os.path.getsize(self.folder / "reached") >= self.count:
            (self.folder / "happened").write_text(str(time.time()))
            self.problem()

    @property
    def happened(self):
        mark = self.folder / "happened"
        return float(mark.read_text()) if mark.exists() else None


class TroubledSampler(ToyTaskSampler):
    def __init__(self, *args, trouble, **kwargs):
        super().__init__(*args, **kwargs)
        self.trouble = trouble

    def next_task(self, force_advance_scene=False):
        if self.tasks_drawn:
            self.trouble.reached("collect" if self.max_tasks is None else "validate")
        return super().next_task(force_advance_scene)

    def state_dict(self, task):
        self.trouble.reached("save")
        return super().state_dict(task)


class TroubledPPO(PPO):
    def loss(self, *args, **kwargs):
        self.trouble.reached("update")
        return super().loss(*args, **kwargs)


class TroubledToy(ToyExperiment):
    """Trains until something happens."""

    def __init__(self, trouble, **kwargs):
        super().__init__(**{"task": "copy", "stage_steps": (10_000_000,), "constant_lr": True, **kwargs})
        self.trouble = trouble

    def training_pipeline(self, **kwargs):
        pipeline = super().training_pipeline(**kwargs)
        pipeline.named_losses["ppo_loss"] = TroubledPPO(0.2, 0.5, 0.0)
        pipeline.named_losses["ppo_loss"].trouble = self.trouble
        return pipeline

    def create_model(self, **kwargs):
        self.trouble.reached("start-up")
        return super().create_model(**kwargs)

    def make_sampler_fn(self, **kwargs):
        return TroubledSampler(self.task_class, trouble=self.trouble, **kwargs)


def to_runner(number):
    os.kill(multiprocessing.parent_process().pid, number)


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    time.sleep(600)


@pytest.fixture
def ends(tmp_path, start, record_property):
    """Runs a troubled toy that has to end with an error within seconds; returns error and saved checkpoints."""

    def run(phase, problem, error, match=None, count=1, within=15.0, **kwargs):
        config_kwargs = kwargs.pop("config", {})
        trouble = Trouble(tmp_path, phase, problem, count)
        shared, before = set(os.listdir("/dev/shm")), set(psutil.Process().children(recursive=True))
        with pytest.raises(error, match=match) as caught:
            start(TroubledToy(trouble, **config_kwargs), tmp_path / "out", **kwargs)
        took = time.time() - trouble.happened
        record_property("seconds", took)
        assert took < within
        assert set(psutil.Process().children(recursive=True)) <= before, "processes are left behind"
        deadline = time.monotonic() + 5  # other programs may be using it for a moment
        while (left := set(os.listdir("/dev/shm")) - shared) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, "shared memory is left behind"
        folders = list((tmp_path / "out" / "checkpoints" / "Toy").glob("*"))
        return caught.value, [load_checkpoint(path) for path in checkpoints_in(folders[0])] if folders else []

    return run


PHASES = ["start-up", "collect", "update", "save", "validate"]


@pytest.mark.faults("SIGTERM or SIGINT", "stops, status 130, saves first", "nothing")
@pytest.mark.parametrize(
    ("phase", "number"),
    [(phase, number) for phase in PHASES for number in (signal.SIGTERM, signal.SIGINT)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_signals(phase, number, ends):
    _, states = ends(
        phase, partial(to_runner, number), KeyboardInterrupt, count=1 if phase in ("start-up", "validate") else 30
    )
    if phase != "start-up":
        assert states[-1].is_exact
        assert states[-1].total_steps > 0


@pytest.mark.faults(
    "trainer killed (SIGKILL)", "stops, status 1; nothing lives on", "what was done since the last checkpoint"
)
def test_trainer_killed(ends):
    _, states = ends("update", kill_itself, WorkerError, "training process died(.|\n)*SIGKILL", count=30)
    assert states[-1].is_exact


@pytest.mark.faults(
    "validator killed (SIGKILL)", "stops, status 1, saves first", "that validation; --resume repeats it"
)
def test_validator_killed(ends):
    _, states = ends("validate", kill_itself, WorkerError, "validation process died(.|\n)*SIGKILL")
    assert states[-1].is_exact


@pytest.mark.faults("validator hangs", "at the deadline says where, stops, status 1, saves first", "that validation")
def test_validator_hangs(ends, monkeypatch, capfd):
    monkeypatch.setattr(supervision, "EVALUATION_DEADLINE_S", 2.0)
    _, states = ends("validate", hang, WorkerError, "validation process has not answered for")
    assert states[-1].is_exact
    assert "in hang" in capfd.readouterr().err


@pytest.mark.faults("sampler process killed (SIGKILL)", "stops, status 1, saves first", "the current rollout")
def test_sampler_killed(ends):
    _, states = ends("collect", kill_itself, TaskWorkerError, "exit code -9", count=30, backend="process")
    assert states[-1].is_exact


@pytest.mark.faults(
    "sampler process killed, with --enable_crash_recovery", "restarted, counted, training goes on", "its episodes"
)
def test_sampler_killed_and_restarted(tmp_path, start, caplog):
    trouble = Trouble(tmp_path, "collect", kill_itself, count=10)
    config = TroubledToy(trouble, stage_steps=(256,), num_eval_samplers=0)
    begun = start(config, tmp_path / "out", backend="process", try_restart_after_task_error=True)
    assert trouble.happened
    states = [load_checkpoint(path) for path in checkpoints_in(tmp_path / "out" / "checkpoints" / "Toy" / begun)]
    assert states[-1].total_steps == 256
    metrics = (tmp_path / "out" / "metrics" / "Toy" / begun / "metrics.jsonl").read_text()
    assert '"train-misc/sampler_restarts": 1.0' in metrics
