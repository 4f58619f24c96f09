"""Learning results: runs over seeds, resumed, evaluated on unseen episodes, in tables and figures."""

from __future__ import annotations

import json

import pytest

from benchmarks import ablation, learning, learning_figures, made_by, tables
from benchmarks.common import RESULTS

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
    assert '| plain | `{"kl_target": null}` | 1,500 (1,000, 2,000) |  | 10.5 (7, 14) |' in ablation


def test_table_of_tasks(results):
    result = json.loads((results / "learning-ablation-plain.json").read_text())
    result["settings"]["label"] = "Hopper"
    (results / "learning-task-hopper.json").write_text(json.dumps(result))
    page = "<!-- tables: tasks -->\n<!-- end of tables -->\n<!-- tables: learning -->\n<!-- end of tables -->\n"
    page = tables.render(page, results)
    assert "| Hopper | 2.0 | 1,500 (1,000, 2,000) |" in page
    assert "| 10.5 (7, 14) | 2,609 ± 701 | abc |" in page
    assert "**ant**" in page
    assert "**task-hopper**" not in page, "it has its line"


def test_checkpoints_count_where_they_are_near_and_are_shown_once():
    rows = [row(seed, seed + 1) for seed in range(2)]
    for each in rows:
        steps = [503_808, 1_007_616]
        each["valid"] = {"steps": steps, "seconds": [60.0, 120.0], "reward": [50.0, 100.0 * (each["seed"] + 1)]}
        each["evaluations"][0]["steps"] = 1_007_616
    found = tables.returns_at(rows, 1_000_000)
    assert found == {"training": [1000, 2000], "validation": [100, 200], "20 unseen episodes": [7, 14]}
    assert tables.returns_at(rows, 1_500_000).keys() == {"training"}
    lines = [line.split(" | ")[:3] for line in tables.learning(rows)[2:]]
    assert [(steps.removeprefix("| "), what) for steps, _, what in lines] == [
        ("1,000,000", "training"),
        ("1,007,616", "validation"),
        ("1,007,616", "20 unseen episodes"),
        ("1,500,000", "training"),
    ]


def test_the_commit_of_training_is_that_of_its_folder():
    rows = [{"trained": [{"commit": "a"}, {"commit": "b"}]}, {"trained": [{"commit": "b"}]}, {}]
    assert tables.trained_at({"commit": "c", "rows": rows}) == ["a", "b"]
    assert tables.trained_at({"commit": "c", "rows": [{}]}) == ["c"]


def test_an_empty_folder_has_no_tables(tmp_path):
    page = "<!-- tables: learning -->\n<!-- end of tables -->\n<!-- tables: ablation -->\n<!-- end of tables -->\n"
    assert tables.render(page, tmp_path).count("No results yet.") == 2


def test_figure(results, tmp_path):
    figure = tmp_path / "figures" / "ant.png"
    names = ["ant", "ablation-plain", "--mode", "train", "--published", "ant", "--results", str(results)]
    learning_figures.main([*names, "--figure", str(figure)])
    assert figure.stat().st_size > 10_000


def test_a_folder_belongs_to_one_run_which_can_be_prolonged(tmp_path):
    made_by.claim(tmp_path, "ant", {"total_steps": 500, "lr": 1}, 3)
    made_by.begin_part(tmp_path, ["allenact", "ant"], 2)
    (tmp_path / "finished").touch()
    made_by.claim(tmp_path, "ant", {"total_steps": 500, "lr": 1}, 3)
    assert (tmp_path / "finished").exists()
    others = [("hopper", {"total_steps": 900, "lr": 1}, 3), ("ant", {"total_steps": 900, "lr": 2}, 3)]
    others += [("ant", {"total_steps": 900, "lr": 1}, 4), ("ant", {"total_steps": 400, "lr": 1}, 3), ("ant", {}, 3)]
    for other in others:
        with pytest.raises(RuntimeError, match="choose another --out"):
            made_by.claim(tmp_path, *other)
    assert (tmp_path / "finished").exists()
    made_by.claim(tmp_path, "ant", {"total_steps": 900, "lr": 1}, 3)
    assert not (tmp_path / "finished").exists()
    note = made_by.read_note(tmp_path)
    assert (note["run"], note["prolonged_from"]) == (["ant", {"total_steps": 900, "lr": 1}, 3], [500])
    (part,) = note["parts"]
    assert (part["command"], part["cores"]) == ("allenact ant", 2)
    assert part.keys() >= {"commit", "machine", "versions"}


def test_older_notes_are_read(tmp_path):
    run = ["ant", {"total_steps": 500}, 3]
    (tmp_path / "made_by.json").write_text(json.dumps(run))
    made_by.claim(tmp_path, *run)
    assert made_by.read_note(tmp_path) == {"run": run, "prolonged_from": [], "parts": []}
    with pytest.raises(RuntimeError, match="choose another --out"):
        made_by.claim(tmp_path, "ant", {"total_steps": 500, "lr": 1}, 3)
    made_by.claim(tmp_path, "ant", {"total_steps": 900}, 3)
    assert made_by.read_note(tmp_path)["prolonged_from"] == [500]


def test_an_ablation_trains_what_has_no_whole_result(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(learning, "main", asked.append)
    flags = ["--only", "low-target", "--seeds", "0", "1", "--results", str(tmp_path)]
    path = tmp_path / "learning-ablation-low-target.json"

    def trains(*more, seeds, steps=ablation.STEPS):
        kwargs = {"total_steps": steps, "kl_target": 0.008}
        rows = [{"seed": seed} for seed in seeds]
        path.write_text(json.dumps({"settings": {"config_kwargs": kwargs}, "rows": rows}))
        asked.clear()
        ablation.main([*flags, *more])
        return len(asked) == 1

    assert not trains(seeds=[0, 1])
    assert trains(seeds=[0]), "it was stopped before the second seed was evaluated"
    assert trains("--seeds", "0", "1", "2", seeds=[0, 1])
    assert trains("--steps", "2000000", seeds=[0, 1])
    assert not trains("--steps", "2000000", seeds=[0, 1], steps=2_000_000)
    path.unlink()
    ablation.main(flags)
    assert asked[-1][asked[-1].index("--results") + 1] == str(tmp_path)


def test_episodes_are_in_the_order_of_their_seeds_where_they_say_them():
    tasks = [{"reward": seed, "task_info": {"seed": seed}} for seed in (12, 10, 11)]
    ordered, order = learning.by_seed(tasks)
    assert ([task["reward"] for task in ordered], order) == ([10, 11, 12], "seeds")
    del tasks[1]["task_info"]["seed"]
    assert learning.by_seed(tasks) == (tasks, "finishing")


@pytest.mark.slow
def test_seeds_are_trained_resumed_and_evaluated(tmp_path):
    flags = ["--config_kwargs", json.dumps(SMALL), "--name", "tiny", "--results", str(tmp_path), "--episodes", "3"]
    out = tmp_path / "out"
    learning.main([*EXPERIMENT, *flags, "--seeds", "3", "4", "--parallel", "2", "--out", str(out)])
    result = json.loads((tmp_path / "learning-tiny.json").read_text())
    assert [each["seed"] for each in result["rows"]] == [3, 4]
    assert all(each["train"]["steps"] == [256, 512] for each in result["rows"])
    assert all(len(each["evaluations"][0]["returns"]) == 3 for each in result["rows"])
    assert all(each["evaluations"][0]["order"] == "seeds" for each in result["rows"])
    assert [[part["cores"] for part in each["trained"]] for each in result["rows"]] == [[1], [1]]

    (out / "seed3" / "finished").unlink()
    for path in out.glob("seed3/checkpoints/*/*/*000512.pt"):
        path.unlink()  # as if it had been interrupted
    learning.main([*EXPERIMENT, *flags, "--seeds", "3", "4", "--out", str(out), "--evaluate_at", "256"])
    again = json.loads((tmp_path / "learning-tiny.json").read_text())
    assert [each["parts"] for each in again["rows"]] == [2, 1]
    assert [len(each["trained"]) for each in again["rows"]] == [2, 1]
    assert again["rows"][0]["train"]["steps"] == [256, 512]
    assert again["rows"][0]["train"]["reward"] == result["rows"][0]["train"]["reward"], "resumed as if never stopped"
    assert [each["steps"] for each in again["rows"][0]["evaluations"]] == [256, 512]

    before = sorted(out.rglob("*"))
    learning.main([*EXPERIMENT, *flags, "--collect", str(out / "seed4")])
    collected = json.loads((tmp_path / "learning-tiny.json").read_text())
    assert collected["rows"][0]["train"] == again["rows"][1]["train"]
    assert collected["rows"][0]["trained"] == again["rows"][1]["trained"]
    assert "parallel" in again["settings"]
    assert "parallel" not in collected["settings"], "it says nothing about how they were trained"
    assert sorted(out.rglob("*")) == before, "collecting only reads"

    with pytest.raises(RuntimeError, match="choose another --out"):
        learning.main([*EXPERIMENT, *flags[2:], "--seeds", "3", "--out", str(out), "--config_kwargs", "{}"])

    longer = ["--config_kwargs", json.dumps({**SMALL, "total_steps": 768})]
    learning.main([*EXPERIMENT, *flags, *longer, "--seeds", "4", "--out", str(out)])
    (prolonged,) = json.loads((tmp_path / "learning-tiny.json").read_text())["rows"]
    assert prolonged["train"]["steps"] == [256, 512, 768]
    assert (prolonged["prolonged_from"], len(prolonged["trained"])) == ([512], 2)


def test_ablations_that_have_a_result_are_not_trained_again(monkeypatch):
    monkeypatch.setattr(learning, "main", lambda args: pytest.fail(f"trains again: {args}"))
    committed = [path.stem.removeprefix("learning-ablation-") for path in RESULTS.glob("learning-ablation-*.json")]
    assert "recipe" in committed
    ablation.main(["--only", *committed])
    with pytest.raises(pytest.fail.Exception, match=r"--seeds', '5'"):
        ablation.main(["--only", "recipe", "--seeds", "5"])
