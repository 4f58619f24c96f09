"""The experiment of docs/extending.md, which is in pieces there, as a whole."""

import importlib
import re
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
SMALL = {"total_steps": 256, "num_steps": 16, "num_train_samplers": 4, "num_eval_tasks": 2, "save_interval": 128}


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The code of the page as a module, which processes can import, too."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "extending_page.py").write_text("\n".join(blocks))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "extending_page", raising=False)
    return importlib.import_module("extending_page")


def test_the_experiment_trains_in_both_stages_and_plays(page, train):
    config = page.MyExperimentConfig(**SMALL)
    run = train(config)
    moving = [package.scalars.get("train-onpolicy-losses/calm/moving") for package in run.packages]
    assert [value is not None for value in moving] == [False, True]
    assert run.trainer.actor_critic.encoder.rnn.input_size == 5, "four numbers of the field, and the streak"
    assert page.play(config, str(run.checkpoints[-1]))["ep_length"] >= 25


def test_the_callback_speaks_of_the_best(page, capsys):
    best = page.MyExperimentConfig().best()
    for step, reward in enumerate((1.0, 3.0, 2.0)):
        best.on_valid_log(metric_means={"valid-metrics/reward": reward}, step=step)
    assert capsys.readouterr().out.count("best so far") == 2


@pytest.mark.slow
def test_as_a_library(page, tmp_path):
    config, folder = page.MyExperimentConfig(**SMALL), tmp_path / "out"
    series = page.train(config, folder)
    assert series.steps[-1] == 256
    (checkpoints,) = (folder / "checkpoints" / "MyExperiment").iterdir()
    results = page.test(config, folder, str(checkpoints))
    assert [result["training_steps"] for result in results] == [128, 256]
    assert len(results[0]["tasks"]) == 2
    assert results[-1]["test-metrics/reward"] == series.values[-1], "the same episodes"
