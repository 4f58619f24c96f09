"""The real command, as a user types it."""

import contextlib
import fcntl
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest

from allenact.main import main
from allenact.testing.terminal import Terminal
from allenact.utils.cli import get_args

ROOT = Path(__file__).resolve().parents[2]
TOY = """
import gym  # an old experiment file

from allenact.testing.experiments import ToyExperiment


class Toy(ToyExperiment):
    def __init__(self, **kwargs):
        super().__init__(**{"task": "copy", "stage_steps": (256,), **kwargs})
        self.space = gym.spaces.Discrete(2)
"""


@pytest.fixture
def folder(tmp_path):
    """A user's folder with an experiment file, outside the repository."""
    (tmp_path / "my_toy.py").write_text(TOY)
    return tmp_path


def run(*arguments, cwd, script=True, timeout=120, **environment):
    """Runs the command and returns the finished process; output goes to OUT below `cwd`."""
    start = [sys.executable, str(ROOT / "allenact" / "main.py")] if script else [sys.executable, "-m", "allenact.main"]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [*start, *arguments], cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, timeout=timeout
    )


def test_train_then_evaluate(folder, monkeypatch, capfd):
    trained = run("my_toy", "-o", "OUT", "-s", "1", "-m", "2", "--collect_valid_results", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert "TRAIN: 256 rollout steps ({'onpolicy': 256})" in trained.stderr
    assert "\033" not in trained.stderr, "no codes of terminals"
    assert "`gym`" in trained.stderr or "gymnasium" in trained.stderr, "the alias is said"

    (start,) = os.listdir(folder / "OUT" / "checkpoints" / "Toy")
    checkpoints = folder / "OUT" / "checkpoints" / "Toy" / start
    names = sorted(os.listdir(checkpoints))
    assert names == [f"exp_Toy__stage_00__steps_{steps:012d}.pt" for steps in (64, 128, 192, 256)]

    valid_lines = re.findall(
        r"VALID: (\d+) rollout steps .* new_tasks_completed (\d+) checkpoint (\S+)", trained.stderr
    )
    assert valid_lines[-1][:2] == ("256", "6"), "the last checkpoint is validated, each task once"
    metrics = folder / "OUT" / "metrics" / "Toy" / start
    assert f"metrics__valid_{start}{256:012d}.json" in os.listdir(metrics)
    lines = [json.loads(line) for line in (metrics / "metrics.jsonl").read_text().splitlines()]
    assert [line["training_steps"] for line in lines if line["mode"] == "train"] == [32 * i for i in range(1, 9)]
    assert sorted(os.listdir(folder / "OUT" / "used_configs" / "Toy" / start)) == [
        "config_kwargs.json",
        "experiments.py",  # the base class
        "my_toy.py",
    ]
    assert any("__train_" in name for name in os.listdir(folder / "OUT" / "tb" / "Toy" / start))

    capfd.readouterr()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["my_toy", "-o", "OUT", "-s", "1", "-m", "1", "-e", "--eval", "--checkpoint", str(checkpoints)]) == 0
    tested = capfd.readouterr().err
    (test_start,) = os.listdir(folder / "OUT" / "tb" / "Toy" / start / "test")
    (results,) = (folder / "OUT" / "metrics" / "Toy" / test_start).glob("metrics__test_*.json")
    entries = json.loads(results.read_text())
    assert [entry["training_steps"] for entry in entries] == [64, 128, 192, 256]
    for entry in entries:
        rewards = [task["reward"] for task in entry["tasks"]]
        assert len(rewards) == 6
        assert entry["test-metrics/reward"] == pytest.approx(sum(rewards) / 6)
    assert "4 checkpoints tested" in tested
    evaluation = json.loads((results.parent / "evaluation.json").read_text())
    assert [each["training_steps"] for each in evaluation["checkpoints"]] == [64, 128, 192, 256]
    assert evaluation["actions"] == "deterministic"


@pytest.mark.slow
def test_tensorboard_tags(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run("my_toy.py", "-o", "OUT", "-b", ".", script=False, cwd=folder, PYTHONPATH=str(ROOT)).returncode == 0
    (events,) = (folder / "OUT" / "tb" / "Toy").iterdir()
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    tags = set(accumulator.Tags()["scalars"])
    expected = {"train-metrics/" + key for key in ("ep_length", "reward")}
    expected |= {"valid-metrics/" + key for key in ("ep_length", "reward")}
    expected |= {f"train-onpolicy-losses/ppo_loss/{key}" for key in ("value", "action", "entropy", "ppo_total")}
    expected |= {"train-onpolicy-losses/total_loss", "train-misc/pipeline_stage", "train-misc/approx_fps"}
    expected |= {"train-misc/onpolicy_total_experiences", "train-misc/num_tasks_completed_since_last_log"}
    misc = (
        "rollout_epochs",
        "worker_batch_size",
        "rollout_num_mini_batch",
        "global_batch_size",
        "lr",
        "total_grad_norm",
    )
    expected |= {f"train-onpolicy-misc/{key}" for key in (*misc, "approx_eps")}
    assert expected <= tags, expected - tags
    assert [event.step for event in accumulator.Scalars("train-onpolicy-misc/lr")] == [32 * i for i in range(1, 9)]
    assert accumulator.Scalars("train-onpolicy-misc/lr")[1].value == pytest.approx(1e-2 * (1 - 32 / 256))


def test_failure_in_a_worker_reaches_the_shell(folder):
    (folder / "broken.py").write_text(
        TOY.replace('"task": "copy"', '"task": "copy", "num_eval_samplers": 0')
        + """
    def make_sampler_fn(self, **kwargs):
        sampler = super().make_sampler_fn(**kwargs)
        step = sampler.next_task
        def next_task(**kwargs):
            if sampler.tasks_drawn == 2:
                raise RuntimeError("the simulator is out of fuel")
            return step(**kwargs)
        sampler.next_task = next_task
        return sampler
"""
    )
    failed = run("broken", "-o", "OUT", "-m", "2", cwd=folder)
    assert failed.returncode == 1
    assert failed.stderr.count("raise RuntimeError") == 1, "the original traceback, once"
    assert "the simulator is out of fuel" in failed.stderr


def children_of(process):
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def lives(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # which nobody may be there to bury
    except psutil.NoSuchProcess:
        return False


def left_after_5_s(processes):
    """Waits for the end of processes, and returns those that live on."""
    deadline = time.monotonic() + 5
    while (alive := [process for process in processes if lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive


@pytest.fixture
def endless(folder):
    """Starts a run without end and returns its process and log, once the log holds a word; kills what is left."""
    processes = []

    def start(word, command=None, **kwargs):
        log = folder / "log"
        config = {"stage_steps": [100_000_000], "save_interval": 0, **kwargs}
        arguments = ["my_toy", "-o", "OUT", "-m", "2", "--config_kwargs", json.dumps(config)]
        typed = [sys.executable, str(ROOT / "allenact" / "main.py"), *arguments]
        with open(log, "w") as file:
            words = typed if command is None else shlex.split(command)
            process = subprocess.Popen(words, cwd=folder, stderr=file, start_new_session=True)
        processes.append(process)
        deadline = time.monotonic() + 90
        while word not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()  # noqa: PT018
            time.sleep(0.1)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.faults("signal to the whole group", "stops, status 130, saves first", "nothing")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=["SIGINT", "SIGTERM"]
)
def test_stopping_saves_and_leaves_nothing_behind(number, folder, endless, record_property):
    process = endless("TRAIN:")
    descendants = children_of(process)
    assert descendants
    begin = time.monotonic()
    if number == signal.SIGTERM:  # `timeout` sends it twice
        process.send_signal(number)
    os.killpg(process.pid, number)  # as terminals and job schedulers do
    assert process.wait(timeout=30) == 130, (folder / "log").read_text()
    assert list((folder / "OUT" / "checkpoints").rglob("*.pt")), "a last checkpoint"
    alive = left_after_5_s(descendants)
    record_property("seconds", time.monotonic() - begin)
    assert alive == []


def hanging(folder, endless):
    """Starts a run whose samplers soon hang, and returns its process when they do."""
    (folder / "my_toy.py").write_text(
        TOY
        + """
    def make_sampler_fn(self, **kwargs):
        import os, time
        sampler = super().make_sampler_fn(**kwargs)
        draw = sampler.next_task
        def next_task(**kwargs):
            if os.path.exists("hang"):
                time.sleep(600)
            return draw(**kwargs)
        sampler.next_task = next_task
        return sampler
"""
    )
    process = endless("TRAIN:", num_eval_samplers=0)
    (folder / "hang").touch()
    time.sleep(1.0)  # an episode is over sooner
    return process


@pytest.mark.slow
@pytest.mark.faults("SIGTERM to the whole group, samplers hang", "stops, status 130, saves first", "nothing")
def test_what_hangs_ends_while_there_is_time_to_save(folder, endless, record_property):
    process = hanging(folder, endless)
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 130, (folder / "log").read_text()
    record_property("seconds", time.monotonic() - begin)
    assert list((folder / "OUT" / "checkpoints").rglob("*.pt")), (folder / "log").read_text()


@pytest.mark.slow
@pytest.mark.faults("Ctrl-C twice, samplers hang", "stops, status 130", "what was done since the last checkpoint")
@pytest.mark.parametrize("pause", [1.2, 2.5])
def test_who_asks_twice_does_not_wait(pause, folder, endless, record_property):
    process = hanging(folder, endless)
    descendants = children_of(process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(pause)
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 130, (folder / "log").read_text()
    seconds = time.monotonic() - begin
    record_property("seconds", seconds)
    assert seconds < 6, (folder / "log").read_text()
    assert left_after_5_s(descendants) == []


@pytest.mark.slow
@pytest.mark.faults("stopped, then the command that it suggests", "goes on in the same folders", "nothing")
def test_the_suggested_command_goes_on(folder, endless):
    endless("TRAIN:").send_signal(signal.SIGINT)
    log = folder / "log"
    deadline = time.monotonic() + 30
    while "Interrupted." not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    (command,) = [line.strip() for line in log.read_text().splitlines() if line.startswith("    ")]
    (begun,) = (folder / "OUT" / "checkpoints").glob("*/*")
    process = endless("TRAIN:", command=command)
    assert f"the run of {begun.name} goes on from" in log.read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert [*(folder / "OUT" / "checkpoints").glob("*/*")] == [begun]


@pytest.mark.slow
@pytest.mark.faults("resumed with other keyword arguments", "said; training goes on", "equality")
def test_what_has_changed_is_said(folder):
    def train(steps, *arguments):
        kwargs = json.dumps({"stage_steps": [steps], "num_eval_samplers": 0})
        typed = ["my_toy", "-o", "OUT", "--sampler_backend", "serial", "--config_kwargs", kwargs]
        finished = run(*typed, *arguments, cwd=folder)
        assert finished.returncode == 0, finished.stderr
        return finished.stderr

    assert "goes on with another experiment" not in train(64)
    (checkpoint,) = (folder / "OUT" / "checkpoints").rglob("*.pt")
    said = "goes on with another experiment, so not exactly: stage_steps was [{}] and is [{}]."
    assert said.format(64, 128) in train(128, "--checkpoint", str(checkpoint))
    assert said.format(128, 192) in train(192, "--resume")


@pytest.mark.slow
@pytest.mark.faults("runner killed (SIGKILL)", "all its processes end within 10 s", "what was not logged yet")
def test_nothing_survives_the_runner(endless, record_property):
    process = endless("VALID:", save_interval=64)
    descendants = children_of(process)
    begin = time.monotonic()
    process.kill()
    process.wait()
    while (alive := [child for child in descendants if lives(child)]) and time.monotonic() < begin + 10:
        time.sleep(0.1)
    record_property("seconds", time.monotonic() - begin)
    assert alive == []


def test_help_is_quick():
    start = time.monotonic()
    shown = subprocess.run(
        [sys.executable, str(ROOT / "allenact" / "main.py"), "--help"], capture_output=True, text=True, cwd="/"
    )
    assert time.monotonic() - start < 5  # a second on an idle machine
    assert shown.returncode == 0
    for flag in (
        "--eval",
        "--config_kwargs",
        "--output_dir",
        "--max_sampler_processes_per_worker",
        "--sampler_backend",
    ):
        assert flag in shown.stdout
    imported = subprocess.run(
        [sys.executable, "-c", "import allenact.main, sys; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert imported.stdout.strip() == "False"


def test_on_a_terminal_training_is_one_block(folder):
    """What goes through a terminal ends as a summary of the run and the next command, without a line for each log."""
    (folder / "my_toy.py").write_text(TOY.replace('"task": "copy"', '"task": "copy", "num_eval_samplers": 0'))
    shown, status = run_on_terminal("my_toy", "-o", "OUT", "-m", "1", "-s", "1", cwd=folder)
    text = "\n".join(shown)
    assert status == 0, text
    assert not re.search(r"TRAIN:|VALID:", text)
    assert text.count("waiting for the first log") == 0, "drawn over"
    block = [index for index, line in enumerate(shown) if line.startswith("training ")]
    assert len(block) == 1
    assert re.search(r"^steps +━+ +100\.0% +256 of 256", text, re.MULTILINE)
    assert any("first rollout:" in line for line in shown[: block[0]]), "what workers say stands above it"
    assert any("Training is complete: checkpoints in OUT/" in line for line in shown[block[0] :])
    command = next(line for line in shown if "--eval" in line).split()
    suggested = get_args(command[command.index("my_toy") :])
    assert (suggested.output_dir, suggested.seed, suggested.config_kwargs) == ("OUT", 1, None)
    assert (folder / suggested.checkpoint).is_dir()


@pytest.mark.slow
def test_on_a_terminal_a_test_is_a_block_that_gives_way_to_a_table(folder):
    trained = run("my_toy", "-o", "OUT", "-m", "1", "-s", "1", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    shown, status = run_on_terminal(
        "my_toy", "-o", "OUT", "-m", "1", "--eval", "-c", "OUT/checkpoints/Toy/*/*", cwd=folder
    )
    text = "\n".join(shown)
    assert status == 0, text
    assert re.search(
        r"Testing 4 checkpoints from OUT/\S+ with sampled actions, seed 12345; results in OUT/metrics", text
    )
    assert len(re.findall(r"checkpoint \d of 4, exp_Toy\S+: reward ", text)) == 4
    assert not re.search("TEST:|^testing ", text, re.MULTILINE), "the block is gone"
    assert "4 checkpoints tested" in text


def run_on_terminal(*arguments, cwd):
    """Runs the command on a terminal of its own; returns the lines that this shows in the end, and the exit status."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 300, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": ""}
    command = [sys.executable, str(ROOT / "allenact" / "main.py"), *arguments]
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    received = b""
    with contextlib.suppress(OSError):  # as Linux says that this is the end
        while part := os.read(ours, 65536):
            received += part
    os.close(ours)
    terminal = Terminal()
    terminal.write(received.decode())
    return terminal.lines, process.wait(timeout=60)
