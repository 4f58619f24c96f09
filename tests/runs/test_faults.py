"""Signals, deaths and hangs in every process of a run: what it leaves, and that nothing of it lives on."""

import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from functools import partial
from multiprocessing import forkserver

import psutil
import pytest

from allenact.algorithms.onpolicy_sync.checkpointing import checkpoints_in, load_checkpoint
from allenact.algorithms.onpolicy_sync.losses.ppo import PPO
from allenact.errors import RunError, TaskWorkerError, WorkerError
from allenact.runs import supervision
from allenact.testing.experiments import ToyExperiment
from allenact.testing.tasks import ToyTaskSampler

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_server_of_an_earlier_test():
    """Which the processes here, forks of this one, could not use, nor tell apart from one of their own."""
    forkserver._forkserver._stop()


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


@pytest.mark.faults(
    "validator fails, with --enable_crash_recovery", "restarted, counted, training goes on", "some seconds"
)
@pytest.mark.parametrize("problem", [kill_itself, hang], ids=["killed", "hangs"])
def test_validator_is_replaced(problem, tmp_path, start, monkeypatch):
    monkeypatch.setattr(supervision, "EVALUATION_DEADLINE_S", 2.0)
    config = TroubledToy(Trouble(tmp_path, "validate", problem), stage_steps=(256,))
    begun = start(config, tmp_path / "out", try_restart_after_task_error=True)
    metrics = tmp_path / "out" / "metrics" / "Toy" / begun / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    valid = [row for row in rows if row["mode"] == "valid"]
    assert valid[-1]["training_steps"] == 256
    assert valid[-1]["valid-misc/validation_restarts"] == 1.0


@pytest.mark.faults("sampler process killed (SIGKILL)", "stops, status 1, saves first", "the current rollout")
def test_sampler_killed(ends):
    _, states = ends("collect", kill_itself, TaskWorkerError, "exit code -9", count=30, backend="process")
    assert states[-1].is_exact


def lives(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # which nobody may be there to bury
    except psutil.NoSuchProcess:
        return False


@pytest.mark.faults(
    "runner killed while a sampler hangs", "all its processes end within 10 s", "what was not saved yet"
)
def test_runner_killed_while_a_sampler_hangs(tmp_path, start, record_property):
    config = TroubledToy(Trouble(tmp_path, "collect", hang, count=30), num_eval_samplers=0)
    runner = multiprocessing.get_context("fork").Process(
        target=start,
        args=(config, tmp_path / "out"),
        kwargs={"backend": "process", "max_sampler_processes_per_worker": 2},
    )
    runner.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "happened").exists() and runner.is_alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    family = psutil.Process(runner.pid).children(recursive=True)
    assert len(family) >= 3, "trainer and sampler processes"
    begin = time.monotonic()
    runner.kill()
    runner.join()
    while (alive := [process for process in family if lives(process)]) and time.monotonic() < begin + 10:
        time.sleep(0.1)
    record_property("seconds", time.monotonic() - begin)
    assert alive == []


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


def remove(folder):
    """Also what is written into it at this moment."""
    folder.rename(folder.with_name("removed"))
    shutil.rmtree(folder.with_name("removed"))


@pytest.mark.faults("output folder removed in a run", "begun anew, training goes on", "what was in it")
def test_output_removed(tmp_path, start, caplog):
    out = tmp_path / "out"
    config = TroubledToy(Trouble(tmp_path, "update", partial(remove, out), count=30), stage_steps=(512,))
    begun = start(config, out, collect_valid_results=True)[0]
    assert not (tmp_path / "removed").exists()
    states = [load_checkpoint(path) for path in checkpoints_in(out / "checkpoints" / "Toy" / begun)]
    assert states[-1].total_steps == 512
    rows = [json.loads(line) for line in (out / "metrics" / "Toy" / begun / "metrics.jsonl").read_text().splitlines()]
    assert {row["training_steps"] for row in rows if row["mode"] == "train"} >= {448, 480, 512}
    assert [row["training_steps"] for row in rows if row["mode"] == "valid"][-1] == 512
    assert any((out / "tb" / "Toy" / begun).glob("events*"))


def take_rights(folder):
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def obey_file_rights():
    """Takes from this process what lets root write everywhere (see capabilities(7)); others cannot anyway."""
    if os.getuid() == 0:
        libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert libc.capget(header, sets) == 0
        sets[0] &= ~0b110  # effective: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
        assert libc.capset(header, sets) == 0


def train_without_privileges(run):
    obey_file_rights()
    try:
        run()
    except RunError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


@pytest.mark.faults(
    "output folder becomes read-only in a run",
    "warnings, training goes on; the last checkpoint cannot be written: status 1",
    "what was done since the last checkpoint",
)
def test_output_read_only(tmp_path, start, capfd):
    out = tmp_path / "out"
    config = TroubledToy(Trouble(tmp_path, "update", partial(take_rights, out), count=42), stage_steps=(512,))
    run = partial(start, config, out, collect_valid_results=True, callbacks="csv")
    process = multiprocessing.get_context("fork").Process(target=train_without_privileges, args=(run,))
    process.start()
    process.join(60)
    printed = capfd.readouterr().err
    assert process.exitcode == 1, printed
    (folder,) = (out / "checkpoints").glob("*/*")
    states = [load_checkpoint(path) for path in checkpoints_in(folder)]
    for path in [out, *out.rglob("*")]:
        path.chmod(0o755)
    assert "A checkpoint cannot be written, training goes on without it" in printed
    assert "Training goes on, but the metrics file cannot be written" in printed
    assert "the last checkpoint cannot be written" in printed
    assert states[-1].total_steps == 320, "42 mini-batches, four to each rollout of 32 steps"
    assert states[-1].is_exact
