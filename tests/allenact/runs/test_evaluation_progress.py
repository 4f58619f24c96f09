"""What people see while checkpoints are tested."""

import pytest

from allenact.algorithms.onpolicy_sync.tracking import EvaluationStatus, LogPackage
from allenact.runs.evaluation_progress import EvaluationLines, EvaluationProgress
from allenact.utils.terminal import LiveBlock


@pytest.fixture
def progress(clock, terminal):
    return EvaluationProgress("Ant", 3, "deterministic", block=LiveBlock(terminal), clock=clock)


def shown(terminal):
    """Returns what the block says by its labels."""
    rows = (line.split(None, 1) for line in terminal.lines if line.strip())
    return {label: text.rstrip() for label, text in rows}


def finish(progress, clock, steps, reward, seconds=10.0):
    clock.now += seconds
    package = LogPackage("test", steps, {}, checkpoint_file_name=f"/out/a__steps_{steps}.pt")
    progress.logged(package, {"test-metrics/reward": reward, "test-metrics/ep_length": 7.0, "test-misc/x": 1.0})


def test_how_far_and_how_well(progress, clock, terminal, caplog):
    progress.begin_checkpoint("/out/a__steps_64.pt")
    assert shown(terminal)["testing"] == "Ant   deterministic actions"
    assert shown(terminal)["episodes"] == "loading"
    clock.now += 5
    progress.update_status(EvaluationStatus(1, 4, 500, 5.0, {"reward": 2.0}))
    block = shown(terminal)
    assert block["checkpoints"].endswith("0 of 3  a__steps_64.pt")
    assert block["episodes"].endswith("1 of 4")
    assert block["speed"] == "100 steps/s   5 s so far   55 s left"
    assert block["so"].split() == ["far", "reward", "2"]
    with caplog.at_level("INFO", logger="allenact"):
        finish(progress, clock, 64, reward=1234.5, seconds=15)
    assert caplog.messages == ["checkpoint 1 of 3, a__steps_64.pt: reward 1,234, ep_length 7"]
    block = shown(terminal)
    assert block["episodes"] == "writing results and pictures"
    assert block["speed"] == "20 s so far   40 s left"
    assert block["reward"] == "1,234"
    progress.begin_checkpoint("/out/a__steps_128.pt")
    finish(progress, clock, 128, reward=1300.0)
    assert shown(terminal)["reward"].split() == ["1,300", "▁█", "+65.5", "in", "2", "checkpoints"]
    assert shown(terminal)["ep_length"].split()[0] == "7"


def test_the_block_goes_away(progress, clock, terminal):
    progress.begin_checkpoint("/out/a__steps_64.pt")
    progress.close()
    progress.close()
    progress.refresh(now=True)
    terminal.write("the table")
    assert [line for line in terminal.lines if line] == ["the table"]


def test_elsewhere_a_line_now_and_then(clock, caplog):
    lines = EvaluationLines(clock)
    with caplog.at_level("INFO", logger="allenact"):
        lines.begin_checkpoint("a.pt")
        for second in range(1, 46):
            clock.now += 1
            lines.refresh()
            lines.update_status(EvaluationStatus(1 + second // 30, 4, 10 * second, second, {"reward": 1.5}))
        lines.close()
    assert caplog.messages == [
        "Evaluated 1 of 4 tasks, 10 steps/s, about 1 min 0 s left reward 1.5",
        "Evaluated 2 of 4 tasks, 10 steps/s, about 40 s left reward 1.5",
    ]
