"""Curves of runs, from the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def plot_runs():
    spec = importlib.util.spec_from_file_location("plot_runs", ROOT / "scripts" / "plot_runs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def runs(tmp_path):
    for seed in range(3):
        file = tmp_path / f"seed{seed}" / "metrics" / "Ant" / "2026-01-01_00-00-00" / "metrics.jsonl"
        file.parent.mkdir(parents=True)
        lines = [
            {
                "mode": "train",
                "training_steps": step,
                "wall_time": step,
                "elapsed_time": step,
                "train-metrics/reward": seed,
            }
            for step in (100, 200)
        ]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [str(tmp_path / f"seed{seed}") for seed in range(3)]


def test_seeds_of_one_experiment_are_one_curve(plot_runs, runs, tmp_path, capsys, monkeypatch):
    figures = []
    save = plot_runs.save_figure
    monkeypatch.setattr(plot_runs, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path)))
    output = tmp_path / "curves.svg"
    assert plot_runs.main([*runs, "-o", str(output), "--x", "seconds", "--title", "Ant"]) == 0
    assert output.read_text().startswith("<?xml")
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Ant (3 seeds)"]
    mean, *seeds = axes.lines
    assert set(mean.get_ydata()) == {1.0}
    assert [list(line.get_xydata()[-1]) for line in seeds] == [[200 / 60, seed] for seed in range(3)]
    (interval,) = axes.collections
    low, high = interval.get_paths()[0].vertices[:, 1].min(), interval.get_paths()[0].vertices[:, 1].max()
    assert (low, high) == pytest.approx((1 - 4.3027 / 3**0.5, 1 + 4.3027 / 3**0.5), abs=1e-3)  # Student's t, 2 degrees
    assert capsys.readouterr().out.startswith("Ant: 3 runs, 200 steps in 3.3 minutes")


def test_labels_and_separate_runs(plot_runs, runs):
    labelled = plot_runs.labelled_runs([f"a={runs[0]}", f"a={runs[1]}", runs[2]])
    assert {label: len(members) for label, members in labelled.items()} == {"a": 2, "Ant": 1}
    assert len(plot_runs.labelled_runs(runs, separate=True)) == 3


def test_it_runs_from_anywhere(tmp_path):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / "scripts" / "plot_runs.py"), "--help"]
    child = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def test_what_cannot_be_drawn_is_said(plot_runs, runs, tmp_path, capsys):
    assert plot_runs.main([runs[0], "--metric", "rewrad", "-o", str(tmp_path / "x.png")]) == 2
    assert 'did you mean "reward"' in capsys.readouterr().err
    assert plot_runs.main([str(tmp_path / "nowhere")]) == 2
    assert not (tmp_path / "x.png").exists()
