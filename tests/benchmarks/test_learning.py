"""Learning results: runs over seeds, resumed, evaluated on unseen episodes, in tables and figures."""

from __future__ import annotations

import json

import pytest

from benchmarks import learning, learning_figures, tables

SMALL = {"total_steps": 512, "num_steps": 32, "update_repeats": 1, "save_interval": 256, "metric_interval": 1}
EXPERIMENT = ["gym_mujoco_invertedpendulum_ddppo", "-b", "projects/gym_baselines/experiments/mujoco"]


def row(seed, factor):
    steps = [500_000, 1_000_000, 1_500_000]
    curve = {"steps": steps, "seconds": [60.0, 120.0, 180.0], "reward": [factor * step / 1000 for step in steps]}
    evaluation = {"steps": 1_010_000, "returns": [1.0] * 20, "reward": {"mean": 7.0 * factor}}
    empty = {"steps": [], "seconds": [], "reward": []}
    return {"seed": seed, "steps": 1_500_000, "train": curve, "valid": empty, "evaluations": [evaluation]}


@pytest.fixture
def results(tmp_path):
    for name, factors in (("ant", (1, 2, 3)), ("ablation-plain", (1, 2))):
        result = {
            "benchmark": "learning",
            "command": "python -m benchmarks.learning",
            "commit": "abc",
            "machine": {"cpu": "a cpu", "usable_cores": 2, "memory_gb": 1, "system": "Linux"},
            "versions": {"python": "3"},
            "settings": {"label": "", "config_kwargs": {"kl_target": None}},
            "rows": [row(seed, factor) for seed, factor in enumerate(factors)],
        }
        (tmp_path / f"learning-{name}.json").write_text(json.dumps(result))
    return tmp_path


def test_tables(results):
    page = "<!-- tables: learning -->\n<!-- end of tables -->\n<!-- tables: ablation -->\n<!-- end of tables -->\n"
    page, _, ablation = tables.render(page, results).partition("<!-- end of tables -->")
    assert "| environment steps | minutes | returns | seed 0 | seed 1 | seed 2 | mean (95 % interval) |" in page
    assert "| 1,000,000 | 2.0 | training | 1,000 | 2,000 | 3,000 | 2,000 (-484 to 4,484) |" in page
    assert "| 1,010,000 | 2.0 | 20 unseen episodes | 7 | 14 | 21 | 14 (" in page
    assert "| 1,500,000 | 3.0 | training |" in page
    assert "validation" not in page, "nothing was validated"
    assert '| plain | `{"kl_target": null}` | training | 1,000, 2,000 |' in ablation
    assert "| 20 unseen episodes | 7, 14 |" in ablation


def test_an_empty_folder_has_no_tables(tmp_path):
    page = "<!-- tables: learning -->\n<!-- end of tables -->\n<!-- tables: ablation -->\n<!-- end of tables -->\n"
    assert tables.render(page, tmp_path).count("No results yet.") == 2


def test_figure(results, tmp_path):
    figure = tmp_path / "figures" / "ant.png"
    names = ["ant", "ablation-plain", "--mode", "train", "--published", "ant", "--results", str(results)]
    learning_figures.main([*names, "--figure", str(figure)])
    assert figure.stat().st_size > 10_000


@pytest.mark.slow
def test_seeds_are_trained_resumed_and_evaluated(tmp_path):
    flags = ["--config_kwargs", json.dumps(SMALL), "--name", "tiny", "--results", str(tmp_path), "--episodes", "3"]
    out = tmp_path / "out"
    learning.main([*EXPERIMENT, *flags, "--seeds", "3", "4", "--parallel", "2", "--out", str(out)])
    result = json.loads((tmp_path / "learning-tiny.json").read_text())
    assert [each["seed"] for each in result["rows"]] == [3, 4]
    assert all(each["train"]["steps"] == [256, 512] for each in result["rows"])
    assert all(len(each["evaluations"][0]["returns"]) == 3 for each in result["rows"])

    (out / "seed3" / "finished").unlink()
    for path in out.glob("seed3/checkpoints/*/*/*000512.pt"):
        path.unlink()  # as if it had been interrupted
    learning.main([*EXPERIMENT, *flags, "--seeds", "3", "4", "--out", str(out), "--evaluate_at", "256"])
    again = json.loads((tmp_path / "learning-tiny.json").read_text())
    assert [each["parts"] for each in again["rows"]] == [2, 1]
    assert again["rows"][0]["train"]["steps"] == [256, 512]
    assert again["rows"][0]["train"]["reward"] == result["rows"][0]["train"]["reward"], "resumed as if never stopped"
    assert [each["steps"] for each in again["rows"][0]["evaluations"]] == [256, 512]

    before = sorted(out.rglob("*"))
    learning.main([*EXPERIMENT, *flags, "--collect", str(out / "seed4")])
    collected = json.loads((tmp_path / "learning-tiny.json").read_text())
    assert collected["rows"][0]["train"] == again["rows"][1]["train"]
    assert sorted(out.rglob("*")) == before, "collecting only reads"

    with pytest.raises(RuntimeError, match="choose another --out"):
        learning.main([*EXPERIMENT, *flags[2:], "--seeds", "3", "--out", str(out), "--config_kwargs", "{}"])
