"""Statistics of an evaluation, in files and on the terminal."""

import csv
import json

import pytest

from allenact.algorithms.onpolicy_sync.inference_engine import fixed_task_seeds
from allenact.runs.evaluation_report import EvaluationReport


def result(steps, rewards):
    tasks = [{"reward": reward, "success": int(reward > 1), "task_info": {"id": "x"}} for reward in rewards]
    return {"training_steps": steps, "tasks": tasks}


@pytest.fixture
def report():
    made = EvaluationReport("Toy", "deterministic", seed=12345)
    made.add("a/first.pt", result(64, [1.0, 2.0, 6.0]), [3, 4, 7])
    made.add("a/second.pt", result(128, [5.0, 5.0, 8.0]), [3, 4, 7])
    return made


def test_json(report, tmp_path):
    report.write(tmp_path)
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert (content["experiment"], content["actions"], content["seed"]) == ("Toy", "deterministic", 12345)
    assert content["task_seeds"] == [3, 4, 7]
    assert "95%" in content["interval"]
    first, second = content["checkpoints"]
    assert (first["checkpoint"], first["training_steps"]) == ("a/first.pt", 64)
    assert first["metrics"]["reward"] | {"low": 0, "high": 0} == {
        **{"n": 3, "mean": 3.0, "median": 2.0, "min": 1.0, "max": 6.0, "low": 0, "high": 0},
        "std": pytest.approx(7**0.5),
    }
    assert 1.0 <= first["metrics"]["reward"]["low"] < 3.0 < first["metrics"]["reward"]["high"] <= 6.0
    assert first["metrics"]["success"]["mean"] == pytest.approx(2 / 3)
    assert second["metrics"]["reward"]["mean"] == 6.0


def test_csv(report, tmp_path):
    report.write(tmp_path)
    with open(tmp_path / "evaluation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["training_steps"], row["metric"]) for row in rows] == [
        ("64", "reward"),
        ("64", "success"),
        ("128", "reward"),
        ("128", "success"),
    ]
    assert rows[2]["mean"] == "6.0"
    assert rows[2]["actions"] == "deterministic"


def test_several_checkpoints_are_a_table_of_means(report, capfd):
    report.print()
    text = capfd.readouterr().err
    assert "2 checkpoints tested, deterministic actions, episodes with seeds 3 to 4, 7" in text
    assert "second.pt" in text
    assert "6 [5, 8]" in text


def test_one_checkpoint_has_all_its_statistics_printed(report, capfd):
    report.checkpoints.pop()
    report.print()
    text = capfd.readouterr().err
    assert "1 checkpoint tested, deterministic actions, episodes with seeds 3 to 4, 7: first.pt, 64 env" in text
    assert "2.6458" in text, "standard deviation"


def test_a_single_episode_has_no_interval(tmp_path, capfd):
    report = EvaluationReport("Toy", "sampled", seed=12345)
    report.add("only.pt", result(64, [1.0]), [])
    report.write(tmp_path)
    report.print()
    assert json.loads((tmp_path / "evaluation.json").read_text())["checkpoints"][0]["metrics"]["reward"]["low"] is None
    assert "sampled actions" in capfd.readouterr().err


def test_seeds_are_known_only_where_the_experiment_fixes_them():
    fixed = {"task_seeds_list": [5, 6], "max_tasks": 3, "deterministic_sampling": True}
    assert fixed_task_seeds(fixed) == [5, 6, 5]
    assert fixed_task_seeds({**fixed, "deterministic_sampling": False}) == []
    assert fixed_task_seeds({**fixed, "max_tasks": None}) == []
    assert fixed_task_seeds({"seed": 3}) == []
