"""Shipped policies: their cards, the page made from them, and their evaluation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from allenact.algorithms.onpolicy_sync.checkpointing import load_checkpoint
from scripts import shipped_checkpoints

ROOT = Path(__file__).resolve().parents[2]
PENDULUM = ["gym_mujoco_invertedpendulum_ddppo", "-b", "projects/gym_baselines/experiments/mujoco"]
SMALL = {"total_steps": 128, "num_steps": 16, "update_repeats": 1}


def summary(mean, low, high):
    return {"n": 20, "mean": mean, "std": 1.0, "median": mean, "min": low, "max": high, "low": low, "high": high}


CARD = {
    "experiment": "gym_mujoco_ant_ddppo",
    "base": "projects",
    "config_kwargs": {"total_steps": 5},
    "recipe": "A recipe.",
    "trained_by": "allenact gym_mujoco_ant_ddppo",
    "training_steps": 5_000_000,
    "training_seed": 1,
    "kilobytes": 90,
    "episodes": 20,
    "first_seed": 10_000,
    "actions": "deterministic",
    "machine": "a cpu",
    "versions": {"torch": "2"},
    "metrics": {
        "reward": summary(5000.0, 4900.0, 5100.0),
        "ep_length": summary(1000.0, 1000.0, 1000.0),
        "success": summary(1.0, 1.0, 1.0),
    },
}


@pytest.fixture
def folder(tmp_path):
    shutil.copy(ROOT / shipped_checkpoints.FOLDER / "README.md", tmp_path)
    (tmp_path / "ant.json").write_text(json.dumps(CARD))
    return tmp_path


def test_the_committed_page_is_what_the_cards_say():
    assert shipped_checkpoints.main(["--folder", str(ROOT / shipped_checkpoints.FOLDER), "page", "--check"]) == 0


def test_every_committed_card_has_a_small_file():
    for name in shipped_checkpoints.read_cards(ROOT / shipped_checkpoints.FOLDER):
        file = ROOT / shipped_checkpoints.FOLDER / f"{name}.pt"
        assert file.stat().st_size < 1_000_000
        assert load_checkpoint(file).total_steps > 0


def test_page(folder, capsys):
    assert shipped_checkpoints.main(["--folder", str(folder), "page", "--check"]) == 1
    assert "stale" in capsys.readouterr().err
    assert shipped_checkpoints.main(["--folder", str(folder), "page"]) == 0
    assert shipped_checkpoints.main(["--folder", str(folder), "page", "--check"]) == 0
    page = (folder / "README.md").read_text()
    assert "| ant | 5,000,000 steps | 5,000 [4,900, 5,100] | 1,000 [1,000, 1,000] | 1 [1, 1] | 20 | 90 kB |" in page
    assert "with seeds 10000 to 10019: returns from 4,900 to 5,100, median 5,000" in page


@pytest.mark.parametrize(("mean", "status", "word"), [(4950.0, 0, "agree"), (3000.0, 1, "DIFFER")])
def test_an_evaluation_is_compared_with_the_card(mean, status, word, folder, monkeypatch, capsys):
    here = {**CARD["metrics"], "reward": summary(mean, mean - 20, mean + 20)}
    monkeypatch.setattr(shipped_checkpoints, "_evaluate", lambda card, checkpoint: here)
    assert shipped_checkpoints.main(["--folder", str(folder), "evaluate", "ant"]) == status
    text = capsys.readouterr().out
    assert word in text
    assert "5,000 [4,900, 5,100]" in text


def test_a_policy_that_is_not_there(folder, capsys):
    assert shipped_checkpoints.main(["--folder", str(folder), "evaluate", "ants"]) == 2
    assert 'did you mean "ant"?' in capsys.readouterr().err


@pytest.mark.slow
def test_a_trained_policy_is_shipped_and_evaluates_to_the_same(tmp_path):
    def run(*command):
        environment = {"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    kwargs = ["--config_kwargs", json.dumps(SMALL)]
    run("allenact/main.py", *PENDULUM, *kwargs, "-o", str(tmp_path / "out"), "-s", "5", "-i")
    (checkpoint,) = (tmp_path / "out").rglob("*.pt")
    folder = tmp_path / "shipped"
    folder.mkdir()
    shutil.copy(ROOT / shipped_checkpoints.FOLDER / "README.md", folder)
    command = ["-m", "scripts.shipped_checkpoints", "--folder", str(folder)]
    run(*command, "add", "tiny", str(checkpoint), *PENDULUM, *kwargs, "--recipe", "Tiny.", "--trained_by", "hand")
    card = json.loads((folder / "tiny.json").read_text())
    assert (card["training_steps"], card["training_seed"], card["metrics"]["reward"]["n"]) == (128, 5, 20)
    assert (folder / "tiny.pt").stat().st_size < checkpoint.stat().st_size
    assert "agree" in run(*command, "evaluate", "tiny")
    assert "## tiny" in (folder / "README.md").read_text()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_demo_installs_no_test_tools(tmp_path):
    steps = {
        target: subprocess.run(
            ["make", "-n", target, f"VENV={tmp_path}/venv"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for target in ("demo", "test")
    }
    assert "pip install" in steps["demo"]
    assert "scripts.shipped_checkpoints evaluate" in steps["demo"]
    assert "[dev" not in steps["demo"]
    assert "[dev" in steps["test"]
