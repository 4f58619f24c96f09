"""Logs as tables that are valid at any time, whatever new numbers appear."""

import csv

import pytest

from allenact.callbacks.csv_files import CsvFiles


@pytest.fixture
def callback(tmp_path):
    made = CsvFiles()
    made.on_start(output_dir=tmp_path, metrics_dir=tmp_path / "new", description={})
    return made


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_log(callback, tmp_path):
    callback.on_train_log(metric_means={"train-metrics/reward": 1.5}, step=64)
    callback.on_train_log(metric_means={"train-metrics/reward": 2.5}, step=128)
    callback.on_valid_log(metric_means={"valid-metrics/reward": 3.0}, step=64)
    rows = read(tmp_path / "new" / "train.csv")
    assert [(row["training_steps"], row["train-metrics/reward"]) for row in rows] == [("64", "1.5"), ("128", "2.5")]
    assert list(rows[0])[:3] == ["training_steps", "wall_time", "elapsed_time"]
    assert 0 <= float(rows[0]["elapsed_time"]) <= float(rows[1]["elapsed_time"])
    (row,) = read(tmp_path / "new" / "valid.csv")
    assert row["valid-metrics/reward"] == "3.0"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["train.csv", "valid.csv"]


def test_new_numbers_become_columns_that_are_empty_before(callback, tmp_path):
    callback.on_test_log(metric_means={"b": 1.0, "c": 2.0}, step=1)
    callback.on_test_log(metric_means={"a": 3.0, "c": 4.0}, step=2)
    callback.on_test_log(metric_means={"c": 5.0}, step=3)
    rows = read(tmp_path / "new" / "test.csv")
    assert list(rows[0])[3:] == ["b", "c", "a"], "columns that are there stay where they are"
    assert [(row["a"], row["b"], row["c"]) for row in rows] == [("", "1.0", "2.0"), ("3.0", "", "4.0"), ("", "", "5.0")]
