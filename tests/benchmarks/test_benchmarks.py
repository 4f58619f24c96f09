"""The benchmarks: they run, compare within rounds, and the page shows what the results say."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from allenact.algorithms.onpolicy_sync.tracking import LogPackage
from allenact.runs.log_sink import LogSink
from allenact.utils.rendering import RenderingUnavailable
from allenact.utils.summary_writer import SummaryWriter
from allenact.viz import AgentViewViz, VizSuite
from allenact.viz.base import vector_task_datum
from benchmarks import (
    log_cost,
    overlap,
    peers,
    rendering,
    rl_games_ppo,
    startup,
    tables,
    throughput,
    update_speed,
    validation_cost,
)
from benchmarks.common import RESULTS, interleave, paired_ratios
from benchmarks.workloads import Size

TINY = ["--rounds", "2", "--seconds", "0.01", "--name", "tiny"]


def test_ratios_compare_measurements_of_the_same_round():
    # The machine is twice as fast in the second round. The ratio of the medians would be 15 / 18.
    series = {"physics": [10.0, 20.0, 18.0], "whole": [5.0, 15.0, 18.0]}
    assert paired_ratios(series, {"whole": ("whole", "physics")}) == {"whole": {"min": 0.5, "median": 0.75, "max": 1.0}}


def test_contestants_take_turns_and_change_their_order():
    turns = []

    def contestant(name):
        def turn():
            turns.append(name)
            return {name: float(len(turns))}

        return turn

    series = interleave([contestant("a"), contestant("b")], rounds=2)
    assert "".join(turns) == "ab" + "ab" + "ba"  # the first ones warm up
    assert series == {"a": [3.0, 6.0], "b": [4.0, 5.0]}


@pytest.mark.parametrize("num_samplers", [1, 8, 64, 256])
def test_every_number_of_samplers_learns_from_the_same_rows(num_samplers):
    size = Size(num_samplers, rollout_rows=16384)
    assert size.num_steps * num_samplers == 16384
    assert size.num_mini_batch == 4


def test_throughput(tmp_path):
    sizes = ["--samplers", "1", "2", "--rollout_rows", "16", "--mini_batch_rows", "8"]
    backends = ["--backends", "batched", "serial"]
    throughput.main(["--tasks", "Ant", *sizes, *backends, "--results", str(tmp_path), *TINY])
    result = json.loads((tmp_path / "throughput-tiny.json").read_text())
    assert {"command", "commit", "machine", "versions", "settings"} < result.keys()
    assert result["command"].startswith("python -m benchmarks.throughput --tasks Ant --samplers 1 2")
    assert result["machine"]["usable_cores"] >= 1
    assert "torch" in result["versions"]
    assert [(row["num_samplers"], row["num_steps"], row["num_mini_batch"]) for row in result["rows"]] == [
        (1, 16, 2),
        (2, 8, 2),
    ]
    for row in result["rows"]:
        series = row["steps_per_second"]
        assert series.keys() == {"physics", "batched collect", "batched whole", "serial collect", "serial whole"}
        assert all(len(values) == 2 and min(values) > 0 for values in series.values())
        for name, ratio in row["ratios"].items():
            pairs = [value / limit for value, limit in zip(series[name], series["physics"], strict=True)]
            assert ratio["min"] == pytest.approx(min(pairs), rel=1e-3)
            assert ratio["max"] == pytest.approx(max(pairs), rel=1e-3)
        assert all(a > b for a, b in zip(series["batched collect"], series["batched whole"], strict=True))


def test_box2d_is_compared_with_the_serial_backend():
    names = ["process collect", "process whole", "serial collect", "serial whole"]
    assert throughput.comparisons(names) == {
        "process collect": ("process collect", "serial collect"),
        "process whole": ("process whole", "serial whole"),
    }
    assert not throughput.is_offered("batched", "LunarLanderContinuous", 8)


@pytest.mark.slow
def test_overlap(tmp_path):
    overlap.main(["--samplers", "2", "--rollout_rows", "8", "--results", str(tmp_path), *TINY])
    (row,) = json.loads((tmp_path / "overlap-tiny.json").read_text())["rows"]
    assert row["steps_per_second"].keys() == {"one engine", "two threads", "two processes"}
    assert row["ratios"].keys() == {"two threads", "two processes"}
    assert tables.overlap([row])[-1].startswith("| Ant | 2 |")


def test_update_speed(tmp_path):
    update_speed.main(["--sizes", "4x2", "--mini_batches", "2", "--results", str(tmp_path), *TINY])
    (row,) = json.loads((tmp_path / "update_speed-tiny.json").read_text())["rows"]
    assert (row["num_steps"], row["num_samplers"], row["num_mini_batch"]) == (4, 2, 2)
    assert row["milliseconds"].keys() == {"targets", "update, 1 thread(s)", "update, 2 thread(s)"}


def test_peers_say_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="nobody to compare with"):
        peers.main([])
    assert "pip install -r benchmarks/requirements-peers.txt" in capsys.readouterr().out


def test_each_peer_is_compared_with_the_ant_that_sees_the_same():
    pairs = peers.comparisons(["ours (process)", "ours, no contact forces", "EnvPool", "EnvPool, 27 entries"])
    assert pairs["EnvPool whole"] == ("ours (process) whole", "EnvPool whole")
    assert pairs["EnvPool, 27 entries whole"] == ("ours, no contact forces whole", "EnvPool, 27 entries whole")
    assert not [label for label in pairs if label.startswith("ours")]


def test_rl_games_is_compared_with_the_recipe_that_has_its_normalisations(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: name)  # all are installed
    size = Size(64, rollout_rows=4096, mini_batch_rows=2048, passes=4, hidden=(256, 128, 64))
    makers = peers.contestants("Ant", size, seconds=1.0)
    pairs = peers.comparisons(list(makers))
    for suffix in ("", ", compiled"):
        assert pairs[f"rl_games{suffix} whole"][0] == "ours, modern recipe whole"
        assert pairs[f"rl_games, 27 entries{suffix} whole"][0] == "ours, modern recipe, no contact forces whole"
    assert {reference.removesuffix(" whole").removesuffix(" collect") for reference, _ in pairs.values()} < set(makers)
    experiment, its_size, *_ = makers["ours, modern recipe, halved mini-batches"].args
    assert (its_size.num_samplers, its_size.num_steps, its_size.num_mini_batch, its_size.passes) == (64, 64, 4, 4)
    settings = experiment().training_pipeline().training_settings  # which is what the recipe itself says
    assert (settings.num_steps, settings.num_mini_batch, settings.update_repeats) == (64, 4, 4)


def test_rl_games_has_its_own_settings_for_ant():
    size = Size(64, rollout_rows=4096, mini_batch_rows=2048, passes=4, hidden=(256, 128, 64))
    given = rl_games_ppo.parameters("Ant without contact forces", size, "folder")
    config = given["config"]
    assert (config["num_actors"], config["horizon_length"], config["minibatch_size"], config["mini_epochs"]) == (
        64,
        64,
        2048,
        4,
    )
    assert given["network"]["mlp"]["units"] == [256, 128, 64]
    assert config["env_config"]["env_name"] == "Ant-v4"


def test_ant_without_contact_forces_keeps_the_other_options_of_its_experiment():
    experiment = peers.ModernAntWithoutContactForces()
    sampler = experiment.make_sampler_fn(**experiment.train_task_sampler_args(0, 1, seeds=[0]))
    assert sampler.gym_env_kwargs == {"unit_actions": True, "contact_forces": "zero"}
    sampler.close()


def test_rendering(tmp_path):
    try:
        rendering.main(
            ["--frames", "2", "--rounds", "1", "--size", "32", "24", "--name", "x", "--results", str(tmp_path)]
        )
    except RenderingUnavailable as error:
        pytest.skip(str(error))
    (row,) = json.loads((tmp_path / "rendering-x.json").read_text())["rows"]
    drawn = {"drawn", "drawn with shadows and reflections", "drawn without OpenGL"}
    assert row["seconds"].keys() == {*drawn, "written"}
    assert all(seconds > 0 for (seconds,) in row["seconds"].values())
    assert len(tables.rendering([row])) == 2 + 4


def test_shares_of_time():
    first = {"mode": "train", "training_steps": 100}
    tags = {"approx_fps": 50.0, "time_share_log": 0.01, "time_share_collect": 0.6, "time_share_update": 0.3}
    later = {**first, "training_steps": 200, **{f"train-misc/{tag}": value for tag, value in tags.items()}}
    found = log_cost.shares([first, {"mode": "valid", "training_steps": 100}, later])
    assert found["percent"] == {"writing": [pytest.approx(1)], "held up": [pytest.approx(10)]}
    assert (found["logs"], found["steps_per_second"]) == (3, [50.0])


def test_what_validation_adds_is_compared_with_its_own_steps():
    series = {
        "training alone": [20.0, 30.0],
        "with validation": [21.0, 33.0],
        "steps validated": [4000.0, 8000.0],
        "one sampler collect": [2000.0, 1000.0],
        "one sampler whole": [2000.0, 1000.0],
    }
    costs = validation_cost.costs(series)
    assert costs["steps_validated"] == 6000.0
    assert costs["seconds"]["added by validation"] == [1.0, 3.0]
    assert costs["seconds"]["its steps alone"] == [2.0, 8.0]


def test_event_files_of_a_long_run_stay_small(tmp_path):
    """30 million steps of the tutorial: 600 logs of training, 150 of validation, each with the largest GIF there is."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 240, 320, 3), dtype=np.uint8)
    frames = [{vector_task_datum(("render", {"mode": "raw_rgb_list"})): frame} for frame in noise]
    scalars = {
        f"train-onpolicy-misc/{name}": [1.5, 1.0] for name in "abcdefghijklmnopqrstuvwxyz"
    }  # the tutorial has 25
    with SummaryWriter(str(tmp_path)) as writer:
        sink = LogSink(writer=writer, visualizer=VizSuite(video=AgentViewViz(fps=30)))
        sink.write([LogPackage("train", 64, {"onpolicy": 64}, scalars=scalars)])
        sink.close()
    _, of_training = log_cost.event_bytes(tmp_path)
    with SummaryWriter(str(tmp_path)) as writer:
        sink = LogSink(writer=writer, visualizer=VizSuite(video=AgentViewViz(fps=30)))
        sink.write([LogPackage("valid", 64, {}, metrics=[{"task_info": {"id": "a"}}], viz_data={"a": frames})])
        sink.close()
    of_validation = log_cost.event_bytes(tmp_path)[1] - of_training
    assert of_training > 1000
    assert of_validation > 500_000
    assert 600 * of_training + 150 * of_validation < 200e6


def test_memory_of_this_process():
    pid = os.getpid()
    assert startup.family(pid)[0] == pid
    assert pid in startup.family(os.getppid())
    assert startup.proportional_set_size(pid) > 10 * 2**20  # torch alone is more


def test_tables_show_the_results(tmp_path):
    row = {
        "task": "Ant",
        "num_samplers": 8,
        "num_steps": 512,
        "backends": {"batched": "one batch"},
        "steps_per_second": {"physics": [6000.0], "batched collect": [5400.0], "batched whole": [4800.0]},
        "ratios": {
            "batched collect": {"min": 0.9, "median": 0.9, "max": 0.9},
            "batched whole": {"min": 0.7, "median": 0.8, "max": 0.9},
        },
    }
    machine = {"cpu": "Abacus", "usable_cores": 2, "memory_gb": 8, "system": "Linux"}
    result = {"benchmark": "throughput", "command": "measure", "commit": "abc", "machine": machine}
    result |= {"versions": {"torch": "3"}, "settings": {"rounds": 1}, "rows": [row]}
    (tmp_path / "throughput-quiet.json").write_text(json.dumps(result))
    page = tables.render("A\n<!-- tables: throughput -->\nold\n<!-- end of tables -->\nB\n", tmp_path)
    line = "| Ant | 8 | 512 | batched | 5,400 | 0.90 (0.90 to 0.90) | 4,800 | 0.80 (0.70 to 0.90) | physics | 6,000 |"
    assert line in page.splitlines()
    assert "`measure`" in page
    assert "Abacus" in page
    assert "old" not in page
    assert page.startswith("A\n<!-- tables: throughput -->\n")
    assert page.endswith("<!-- end of tables -->\nB\n")


def test_the_page_is_up_to_date():
    page = tables.README.read_text()
    assert tables.render(page, RESULTS) == page
