"""What a terminal shows while training."""

from pathlib import Path

import pytest

from allenact.algorithms.onpolicy_sync.tracking import LogPackage
from allenact.runs.live_progress import number, sparkline
from allenact.runs.log_sink import LogSink
from allenact.runs.progress import TrainingProgress
from allenact.utils.terminal import LiveBlock
from allenact.utils.timing import duration


@pytest.fixture
def follow(clock, terminal):
    """Begins to follow a training run; returns what shows it and a function that reports a log of it."""

    def begin(*stage_steps, resumed=False):
        progress = TrainingProgress("Ant", stage_steps, resumed=resumed, block=LiveBlock(terminal), clock=clock)
        progress.begin()

        def log(steps, mode="train", stage=0, seconds=10.0, means=None, **metrics):
            clock.now += seconds
            package = LogPackage(mode=mode, training_steps=steps, storage_experiences={}, pipeline_stage=stage)
            progress.logged(package, {f"{mode}-metrics/{key}": value for key, value in metrics.items()} | (means or {}))

        return progress, log

    return begin


def shown(terminal):
    """Returns what the block says by its labels."""
    rows = (line.split(None, 1) for line in terminal.lines if line.strip())
    return {label: text.rstrip() for label, text in rows}


def test_before_the_first_log(follow, terminal):
    follow(1000, resumed=True)
    assert shown(terminal) == {"training": "Ant", "steps": "waiting for the first log", "speed": "0 s so far"}


def test_how_far_how_fast_how_well(follow, terminal, clock):
    progress, log = follow(1000)
    log(100, reward=1.0, ep_length=20.0)
    log(200, reward=3.0, ep_length=20.0, means={"train-misc/time_share_collect": 0.75, "train-misc/time_share_log": 0})
    log(200, mode="valid", reward=2.5, seconds=0)
    progress.saved(Path("/out/exp_Ant__stage_00__steps_000000000200.pt"))
    clock.now += 5
    progress.refresh()
    block = shown(terminal)
    assert "20.0%" in block["steps"]
    assert block["steps"].endswith("200 of 1,000")
    assert block["speed"] == "10 steps/s   25 s so far   1 min 15 s left"
    assert block["reward"].split() == ["3", "▁█", "+2", "in", "2", "logs"]
    assert block["ep_length"].split()[0] == "20"
    assert block["validation"] == "reward 2.5  at 200 steps"
    assert block["time"] == "collect 75%"
    assert block["checkpoint"] == "at 200 steps: exp_Ant__stage_00__steps_000000000200.pt"


def test_the_best_validation_is_remembered(follow, terminal):
    _, log = follow(1000)
    log(100, mode="valid", reward=5.0)
    log(200, mode="valid", reward=4.0)
    assert shown(terminal)["validation"] == "reward 4  at 200 steps; best reward 5 at 100"


def test_speed_is_that_of_the_last_logs(follow):
    progress, log = follow(10_000)
    log(100, seconds=100)
    for index in range(20):
        log(200 + index * 100, seconds=1)
    assert progress.rate == pytest.approx(100)


def test_a_stage_that_ends_early_brings_the_end_nearer(follow, terminal):
    progress, log = follow(1000, 500)
    assert progress.total_steps == 1500
    log(300)
    log(400, stage=1)
    assert progress.total_steps == 300 + 500
    assert shown(terminal)["training"] == "Ant   stage 1, the last"


def test_a_resumed_run(follow):
    progress, log = follow(1000, 500, resumed=True)
    assert (progress.steps, progress.total_steps, progress.rate, progress.seconds_left) == (None, 1500, None, None)
    log(1100, stage=1)
    assert (progress.steps, progress.total_steps, progress.rate) == (1100, 1500, None), "where it began is not known"
    log(1200, stage=1, seconds=20)
    assert progress.rate == pytest.approx(5)
    assert progress.seconds_left == pytest.approx(60)


@pytest.mark.parametrize("limit", [float("inf"), -1])
def test_a_stage_without_a_limit(follow, terminal, limit):
    progress, log = follow(limit)
    log(100)
    assert progress.seconds_left is None
    assert shown(terminal)["steps"] == "100"


def test_metrics_of_other_names_are_shown(follow, terminal):
    _, log = follow(1000)
    log(100, loss=1.0, accuracy=0.5)
    assert {"loss", "accuracy"} <= shown(terminal).keys()


def test_it_is_not_drawn_too_often(follow, terminal, clock):
    progress, log = follow(1000)
    log(100)
    before = terminal.getvalue()
    for steps in range(101, 111):
        log(steps, seconds=0.02)
        progress.refresh()
    assert terminal.getvalue() == before
    clock.now += 0.2
    progress.refresh()
    assert terminal.getvalue() != before


def test_the_last_state_stays(follow, terminal):
    progress, log = follow(1000)
    log(1000)
    progress.close()
    progress.close()
    terminal.write("a prompt")
    assert terminal.lines[0].startswith("training")
    assert terminal.lines[-1] == "a prompt"
    progress.refresh(now=True)
    assert terminal.lines[-1] == "a prompt", "nothing is drawn any more"


def test_no_line_is_wider_than_the_terminal(follow, terminal, clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    progress, log = follow(1000)
    log(100, reward=1.0)
    clock.now += 1
    progress.saved(Path("exp_" + "long" * 20 + "__stage_00__steps_000000000100.pt"))
    assert max(len(line) for line in terminal.lines) <= 39


def test_it_takes_the_place_of_the_lines(follow, terminal, clock, caplog):
    progress, _ = follow(1000)
    clock.now += 1
    package = LogPackage(
        mode="train", training_steps=64, storage_experiences={}, metrics=[{"reward": 1.5, "ep_length": 4}]
    )
    with caplog.at_level("INFO", logger="allenact"):
        LogSink(progress=progress).write([package])
    assert "TRAIN" not in caplog.text
    assert shown(terminal)["reward"] == "1.5"


def test_numbers_and_durations():
    assert [number(x) for x in (0.123456, 12.345, -1234.5, 2e12)] == ["0.1235", "12.35", "-1,234", "2e+12"]
    assert [duration(x) for x in (7.6, 60, 3599, 4800)] == ["8 s", "1 min 0 s", "59 min 59 s", "1 h 20 min"]
    assert sparkline([0.0, float("nan"), 7.0, 3.0]) == "▁ █▄"
    assert sparkline([5.0, 5.0]) == "▁▁"
