"""One log in: a line on the console, scalars, a line of metrics.jsonl, a results entry and callbacks out."""

import errno
import json
import logging
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from allenact.algorithms.onpolicy_sync.tracking import LogPackage
from allenact.base_abstractions.callbacks import Callback
from allenact.runs.log_sink import LogSink, write_json
from allenact.utils import event_file
from allenact.utils.summary_writer import SummaryWriter


def package(mode="train", steps=64, **more):
    defaults = {
        "storage_experiences": {"onpolicy": steps},
        "component_storage": {"onpolicy": "onpolicy"},
        "scalars": {
            f"{mode}-onpolicy-losses/ppo_loss/value": [3.0, 2.0],
            f"{mode}-onpolicy-losses/total_loss": [0.123456, 1.0],
            f"{mode}-onpolicy-misc/lr": [1e-5, 1.0],
        },
        "scalar_storage": {
            f"{mode}-onpolicy-losses/ppo_loss/value": "onpolicy",
            f"{mode}-onpolicy-losses/total_loss": "onpolicy",
            f"{mode}-onpolicy-misc/lr": "onpolicy",
        },
        "metrics": [
            {"reward": 1.0, "ep_length": 5, "task_info": {"id": "a"}},
            {"reward": 2.0, "ep_length": 8, "sub/goal": 1.0},
        ],
        "tasks_data": [{"seen": 1}, {"seen": 2}],
    }
    if mode == "train":
        defaults["pipeline_stage"] = 0
        defaults["seconds"] = {"collect": 0.5}
        defaults["scalars"]["train-misc/teacher_ratio/enforced"] = [0.5, 1.0]
    else:
        defaults["checkpoint_file_name"] = "/out/a.pt"
    return LogPackage(mode=mode, training_steps=steps, **{**defaults, **more})


class Writer:
    """Keeps what it is given instead of writing event files."""

    def __init__(self):
        self.scalars, self.texts = {}, {}

    def add_text(self, tag, text, global_step):
        self.texts[tag] = (text, global_step)

    def add_scalar(self, tag, value, global_step):
        self.scalars[tag] = (value, global_step)

    def flush(self):
        """Has nothing to flush."""

    def close(self):
        self.closed = True


@pytest.fixture
def writer_sink():
    """A sink, and the writer it writes to."""
    writer = Writer()
    return LogSink(writer=writer), writer


@pytest.fixture
def console(caplog):
    """Writes packages, returns the last line as it appears on a console."""

    def write(sink, *packages):
        with caplog.at_level(logging.INFO, logger="allenact"):
            sink.write(list(packages))
        return f"[01/02 03:04:05 INFO:] {caplog.messages[-1]}\t[log_sink.py: 1]"

    return write


def parse(line):
    """Reads a line as scripts written for AllenAct do: pairs between the last `)` and the `[` of the source file."""
    words = line.rsplit(")", 1)[1].split("[")[0].strip().split(" ")
    assert len(words) % 2 == 0, words
    return dict(zip(words[::2], words[1::2], strict=True))


# Console


def test_training_line(console):
    sink = LogSink()
    line = console(sink, package(steps=64))
    assert "TRAIN: 64 rollout steps ({'onpolicy': 64}) " in line
    values = parse(line)
    assert re.fullmatch(r"\d.*s", values.pop("elapsed_time"))
    assert values == {
        "ep_length": "6.5",
        "reward": "1.5",
        "total_loss": "0.123",
        "lr": "1e-05",
        "ppo_loss/value": "1.5",
        "sub/goal": "1",
        "teacher_ratio/enforced": "0.5",
        "new_tasks_completed": "2",
    }
    later = parse(console(sink, package(steps=128)))
    assert float(later["approx_fps"]) > 0
    assert float(later["onpolicy/approx_eps"]) > 0
    assert later.keys() - {"approx_fps", "onpolicy/approx_eps"} == values.keys() | {"elapsed_time"}


def test_order_of_a_training_line(console):
    """By the slashes in the tag, then by the tag; times and counts last."""
    sink = LogSink()
    console(sink, package(steps=64))
    assert list(parse(console(sink, package(steps=128)))) == [
        "ep_length",  # train-metrics/
        "reward",
        "total_loss",  # train-onpolicy-losses/
        "lr",  # train-onpolicy-misc/
        "sub/goal",  # train-metrics/
        "teacher_ratio/enforced",  # train-misc/
        "ppo_loss/value",  # train-onpolicy-losses/
        "elapsed_time",
        "approx_fps",
        "onpolicy/approx_eps",
        "new_tasks_completed",
    ]


@pytest.mark.parametrize("mode", ["valid", "test"])
def test_evaluation_line(mode, console):
    line = console(LogSink(), package(mode, 151552))
    assert f"{mode.upper()}: 151552 rollout steps ({{'onpolicy': 151552}}) " in line
    values = parse(line)
    assert list(values)[-2:] == ["new_tasks_completed", "checkpoint"]
    assert values["checkpoint"] == "/out/a.pt"
    assert values["reward"] == "1.5"
    assert not {"elapsed_time", "approx_fps"} & values.keys()


def test_metrics_with_the_names_of_counters_are_shown(console):
    metrics = [{"approx_distance": 1.0, "my_pipeline_stage": 2.0, "time_share_left": 3.0}]
    values = parse(console(LogSink(), package(metrics=metrics)))
    assert (values["approx_distance"], values["my_pipeline_stage"], values["time_share_left"]) == ("1", "2", "3")


def test_tasks_without_metrics_are_said(caplog):
    with caplog.at_level(logging.WARNING, logger="allenact"):
        LogSink().write([package(dropped_metrics=3)])
    assert "3 finished tasks" in caplog.text


# TensorBoard


def test_tags_and_x_axes_of_training():
    writer = Writer()
    sink = LogSink(writer=writer)
    sink.write([package(steps=64, storage_experiences={"onpolicy": 60, "demos": 7})])
    counters = {"train-misc/onpolicy_total_experiences": (60, 64), "train-misc/demos_total_experiences": (7, 64)}
    first = {
        **counters,
        "train-metrics/reward": (1.5, 64),
        "train-metrics/ep_length": (6.5, 64),
        "train-metrics/sub/goal": (1.0, 64),
        "train-onpolicy-losses/ppo_loss/value": (1.5, 60),
        "train-onpolicy-losses/total_loss": (0.123456, 60),
        "train-onpolicy-misc/lr": (1e-5, 60),
        "train-misc/teacher_ratio/enforced": (0.5, 64),
        "train-misc/pipeline_stage": (0, 64),
        "train-misc/num_tasks_completed_since_last_log": (2, 64),
    }
    assert writer.scalars == first
    sink.write([package(steps=128, storage_experiences={"onpolicy": 120, "demos": 9})])
    new = writer.scalars.keys() - first.keys()
    assert new >= {"train-misc/approx_fps", "train-onpolicy-misc/approx_eps"}
    assert writer.scalars["train-misc/approx_fps"][1] == 128
    assert writer.scalars["train-onpolicy-misc/approx_eps"][1] == 120
    assert writer.scalars["train-misc/approx_fps"][0] / writer.scalars["train-onpolicy-misc/approx_eps"][0] == (
        pytest.approx(64 / 60)
    )
    sink.close()
    assert writer.closed


def test_rates_of_a_component_that_has_another_name_than_its_storage():
    writer = Writer()
    sink = LogSink(writer=writer)
    for steps in (64, 128):
        sink.write([package(steps=steps, component_storage={"off": "onpolicy"})])
    assert "train-off-misc/approx_eps" in writer.scalars
    assert "train-onpolicy-misc/approx_eps" not in writer.scalars


def test_tags_of_evaluation():
    writer = Writer()
    LogSink(writer=writer).write([package("valid", 64)])
    assert writer.scalars.keys() >= {
        "valid-metrics/reward",
        "valid-onpolicy-losses/ppo_loss/value",
        "valid-misc/num_tasks_completed_since_last_log",
    }
    assert not any(tag.startswith("train") for tag in writer.scalars)
    assert {step for _, step in writer.scalars.values()} == {64}


# Results and files


def test_results_of_an_evaluation():
    given = package("test", 151552)
    results = LogSink().write([given])
    assert results == {
        "test-metrics/reward": 1.5,
        "test-metrics/ep_length": 6.5,
        "test-metrics/sub/goal": 1.0,
        "test-onpolicy-losses/ppo_loss/value": 1.5,
        "test-onpolicy-losses/total_loss": 0.123456,
        "test-onpolicy-misc/lr": 1e-5,
        "training_steps": 151552,
        "tasks": given.metrics,
    }


def test_a_results_file_is_indented_sorted_and_plain(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    content = [{"b": np.float32(0.5), "a": np.arange(2), "training_steps": np.int64(3)}]
    write_json(path, content)
    plain = [{"b": 0.5, "a": [0, 1], "training_steps": 3}]
    assert json.loads(path.read_text()) == plain
    assert path.read_text() == json.dumps(plain, indent=4, sort_keys=True)


def test_metrics_lines(tmp_path):
    path = tmp_path / "new" / "metrics.jsonl"
    sink = LogSink(metrics_file=path)
    sink.write([package(steps=64)])
    sink.write([package("valid", 64)])
    assert len(path.read_text().splitlines()) == 2, "flushed at once"
    sink.close()
    sink.close()
    again = LogSink(metrics_file=path)
    again.write([package(steps=128)])
    again.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["mode"], line["training_steps"]) for line in lines] == [("train", 64), ("valid", 64), ("train", 128)]
    assert lines[0]["train-metrics/reward"] == 1.5
    assert lines[1]["valid-metrics/reward"] == 1.5
    assert lines[0]["wall_time"] <= lines[2]["wall_time"]
    assert 0 <= lines[0]["elapsed_time"] <= lines[1]["elapsed_time"]


# Several workers


def test_several_packages_are_averaged_by_their_counts():
    few = package(scalars={"train-misc/x": [1.0, 1.0], "train-misc/y": [2.0, 1.0]}, metrics=[{"reward": 0.0}])
    many = package(
        scalars={"train-misc/x": [9.0, 3.0]},
        metrics=[{"reward": 1.0, "only": 5.0}, {"reward": 1.0}, {"reward": 2.0}],
        tasks_data=[{"seen": 3}],
        checkpoint_file_name="a.pt",
    )
    callback = Recorder()
    writer = Writer()
    LogSink(callbacks=[callback], writer=writer).write([few, many])
    assert writer.scalars["train-misc/x"] == (10 / 4, 64)
    assert writer.scalars["train-misc/y"] == (2, 64)
    assert writer.scalars["train-metrics/reward"] == (1, 64)
    assert writer.scalars["train-metrics/only"] == (5, 64)
    assert writer.scalars["train-misc/num_tasks_completed_since_last_log"] == (4, 64)
    assert writer.scalars["train-misc/onpolicy_total_experiences"] == (64, 64), "a count over all workers already"
    ((_, told),) = callback.told
    assert [data["seen"] for data in told["tasks_data"]] == [1, 2, 3]
    assert told["checkpoint_file_name"] == "a.pt"


class Recorder(Callback):
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def on_train_log(self, **kwargs):
        self.told.append(("train", kwargs))

    def on_valid_log(self, **kwargs):
        self.told.append(("valid", kwargs))

    def on_test_log(self, **kwargs):
        self.told.append(("test", kwargs))


def test_callbacks_are_told_by_mode():
    callbacks = [Recorder(), Recorder()]
    sink = LogSink(callbacks=callbacks)
    train, test = package(steps=64), package("test", 64)
    sink.write([train])
    results = sink.write([test])
    for callback in callbacks:
        (first, of_train), (second, of_test) = callback.told
        assert (first, second) == ("train", "test")
        assert of_train["metrics"] == train.metrics
        assert of_test["metrics"] == results
        assert of_train["step"] == 64
        assert of_train["tasks_data"] == [{"seen": 1}, {"seen": 2}]
        assert of_train["checkpoint_file_name"] is None
        assert of_test["checkpoint_file_name"] == "/out/a.pt"
        x_axes = of_train["scalar_name_to_total_experiences_key"]
        assert x_axes["train-onpolicy-misc/lr"] == "train-misc/onpolicy_total_experiences"
        assert of_train["metric_means"]["train-misc/onpolicy_total_experiences"] == 64
        assert "train-metrics/reward" not in x_axes


def test_notes_of_the_workers_become_texts(writer_sink):
    sink, writer = writer_sink
    sink.write([package(notes={"samplers": "8 task samplers"}), package(notes={"samplers": "another worker's"})])
    assert writer.texts == {"train/samplers": ("8 task samplers", 64)}


def test_rates_are_those_of_the_worker_however_busy_the_runner_is(writer_sink):
    sink, writer = writer_sink
    for log in range(3):  # all are read at once
        sink.write([package(steps=64 * (1 + log), made_at=1000.0 + 8 * log, seconds={"collect": 6.0})])
        if log:
            assert writer.scalars["train-misc/approx_fps"][0] == 8
            assert writer.scalars["train-misc/time_share_collect"][0] == 0.75


def test_time_of_logging_and_of_evaluating(writer_sink):
    sink, writer = writer_sink
    sink.write([package()])
    sink.write([package("valid", seconds={"evaluate": 2.5})])
    assert writer.scalars["valid-misc/evaluation_seconds"] == (2.5, 64)
    sink.write([package(steps=128)])
    share, _ = writer.scalars["train-misc/time_share_log"]
    assert 0 < share <= 1


# Files that cannot be written


def fail(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.faults(
    "TensorBoard's file cannot be written", "one warning, training goes on", "nothing, if it can be later"
)
def test_tensorboard_may_fail(tmp_path, caplog, monkeypatch):
    sink = LogSink(writer=SummaryWriter(str(tmp_path / "tb")), metrics_file=tmp_path / "metrics.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(event_file, "open", fail, raising=False)
        for steps in (64, 128):
            sink.write([package(steps=steps)])
    sink.write([package(steps=192)])
    sink.close()
    assert caplog.text.count("TensorBoard's files cannot be written: [Errno 28] No space left") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [event.step for event in events.Scalars("train-metrics/reward")] == [64, 128, 192]


@pytest.mark.faults("metrics file cannot be written", "one warning, training goes on", "its lines until then")
def test_the_metrics_file_may_fail(writer_sink, tmp_path, caplog, monkeypatch):
    _, writer = writer_sink
    sink = LogSink(writer=writer, metrics_file=tmp_path / "metrics.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", fail)
        for steps in (64, 128):
            sink.write([package(steps=steps)])
    sink.write([package(steps=192)])
    assert caplog.text.count("the metrics file cannot be written") == 1
    assert [json.loads(line)["training_steps"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        192
    ]
    assert writer.scalars["train-metrics/reward"] == (1.5, 192)


@pytest.mark.faults("output folder removed", "begun anew, training goes on", "what was in it")
def test_a_folder_that_is_removed_is_made_again(tmp_path):
    from allenact.utils.summary_writer import SummaryWriter

    folder = tmp_path / "run"
    sink = LogSink(writer=SummaryWriter(log_dir=str(folder)), metrics_file=folder / "metrics.jsonl")
    sink.write([package(steps=64)])
    shutil.rmtree(folder)
    sink.write([package(steps=128)])
    sink.close()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    (events,) = folder.glob("events*")
    assert b"train-metrics/reward" in events.read_bytes()


@pytest.mark.faults("clock set back by a day", "durations stay right", "nothing")
def test_the_clock_may_be_set(tmp_path, monkeypatch):
    sink = LogSink(metrics_file=tmp_path / "metrics.jsonl")
    sink.write([package(steps=64)])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    sink.write([package(steps=128)])
    first, second = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert second["wall_time"] < first["wall_time"]
    assert 0 <= first["elapsed_time"] <= second["elapsed_time"] < 60
    assert second["train-misc/approx_fps"] > 1
