"""Where the files of a run lie, and the record of what was run."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from filelock import FileLock

from allenact.algorithms.onpolicy_sync.runner import CONFIG_KWARGS_STR
from allenact.errors import OutputDirectoryError
from allenact.runs import run_directory
from allenact.runs.run_directory import (
    RunDirectory,
    SaveDirFormat,
    changes_since,
    save_used_configs,
)

FLAT, NESTED = SaveDirFormat.FLAT, SaveDirFormat.NESTED
TRAINED, TESTED = "2026-01-02_03-04-05", "2026-06-07_08-09-10"


@pytest.mark.parametrize(
    ("layout", "extra_tag", "what", "expected"),
    [
        (FLAT, "", "checkpoints", f"checkpoints/Toy/{TRAINED}"),
        (FLAT, "more", "checkpoints", f"checkpoints/Toy/more/{TRAINED}"),
        (NESTED, "more", "checkpoints", f"Toy/more/{TRAINED}/checkpoints"),
        (FLAT, "more", "videos", f"videos/Toy/more/{TRAINED}"),
        (NESTED, "", "videos", f"Toy/{TRAINED}/videos"),
        (FLAT, "", "used_configs", f"used_configs/Toy/{TRAINED}"),
        (NESTED, "", "used_configs", f"Toy/{TRAINED}/used_configs"),
        (FLAT, "more", "train_tensorboard", f"tb/Toy/more/{TRAINED}"),
        (NESTED, "more", "train_tensorboard", f"Toy/more/{TRAINED}/train_tb"),
        (FLAT, "more", "train_metrics", f"metrics/Toy/more/{TRAINED}"),
        (NESTED, "more", "train_metrics", f"test/Toy/{TRAINED}"),
    ],
)
def test_folders_of_training(layout, extra_tag, what, expected):
    directory = RunDirectory(Path("/out"), "Toy", extra_tag, layout)
    assert getattr(directory, what)(TRAINED) == Path("/out") / expected


@pytest.mark.parametrize(
    ("layout", "tensorboard", "metrics"),
    [
        (FLAT, f"tb/Toy/more/{TRAINED}/test/{TESTED}", f"metrics/Toy/more/{TESTED}/metrics__test_{TESTED}.json"),
        (NESTED, f"test/Toy/{TESTED}", f"test/Toy/{TESTED}/metrics.json"),
    ],
)
def test_places_of_a_test(layout, tensorboard, metrics):
    directory = RunDirectory(Path("/out"), "Toy", "more", layout)
    assert directory.test_tensorboard(TESTED, TRAINED) == Path("/out") / tensorboard
    assert directory.test_metrics(TESTED) == Path("/out") / metrics


@pytest.mark.parametrize("layout", [FLAT, NESTED])
def test_file_of_a_validated_checkpoint(layout):
    directory = RunDirectory(Path("/out"), "Toy", "", layout)
    path = directory.valid_metrics(TRAINED, 151552)
    assert path.name == f"metrics__valid_{TRAINED}000000151552.json"
    assert path.parent == directory.train_metrics(TRAINED)


def test_two_runs_never_begin_at_the_same_second(tmp_path):
    directory = RunDirectory(tmp_path, "Toy")
    first = directory.new_start_time()
    assert time.strptime(first, "%Y-%m-%d_%H-%M-%S")
    assert (tmp_path / ".allenact_last_start_time_string").read_text() == first
    second = RunDirectory(tmp_path, "Other").new_start_time()
    assert second > first
    assert (tmp_path / ".allenact_last_start_time_string").read_text() == second


def test_a_lock_that_is_never_released(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "_LOCK_TIMEOUT_S", 0.1)
    with (
        FileLock(str(tmp_path / ".allenact_start_time_string.lock")),
        pytest.raises(OutputDirectoryError, match="held the lock"),
    ):
        RunDirectory(tmp_path, "Toy").new_start_time()


def test_an_output_directory_is_made_and_left_empty(tmp_path):
    RunDirectory(tmp_path / "new" / "out", "Toy").check_writable()
    assert os.listdir(tmp_path / "new" / "out") == []


def test_an_output_directory_that_is_a_file(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputDirectoryError, match="cannot be written"):
        RunDirectory(tmp_path / "out", "Toy").check_writable()


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Two files of the same name, in a folder that is no git repository."""
    paths = [tmp_path / folder / "config.py" for folder in ("a", "b", "c")]
    for index, path in enumerate(paths):
        path.parent.mkdir()
        path.write_text(f"NUMBER = {index}  # ä\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return paths


def test_sources_are_copied_with_a_header(sources, tmp_path):
    files = {str(path): "a.module" for path in sources}
    save_used_configs(tmp_path / "used", {**files, CONFIG_KWARGS_STR: '{"a": 1}'})
    names = ["config.py", "namecollision0__config.py", "namecollision1__config.py"]
    assert sorted(os.listdir(tmp_path / "used")) == sorted([*names, "config_kwargs.json"])
    assert (tmp_path / "used" / "config_kwargs.json").read_text() == '{"a": 1}'
    for path, name in zip(sources, names, strict=True):
        copied = (tmp_path / "used" / name).read_text(encoding="utf-8")
        assert copied == f"### THIS FILE ORIGINALLY LOCATED AT '{path}'\n\n{path.read_text(encoding='utf-8')}"


def test_what_has_changed_since_is_said(sources, tmp_path):
    used = tmp_path / "used"
    files = {str(path): "a.module" for path in sources[:2]}
    before = {**files, CONFIG_KWARGS_STR: '{"a": 1, "b": [2]}'}
    assert changes_since(used, before) == [], "nothing is recorded"
    save_used_configs(used, before)
    assert changes_since(used, before) == []
    sources[1].write_text("NUMBER = 5\n")
    after = {**files, str(sources[2].with_name("other.py")): "b", CONFIG_KWARGS_STR: '{"b": [3], "c": "x"}'}
    sources[2].with_name("other.py").write_text("")
    assert changes_since(used, after) == [
        "config.py has changed",
        "other.py is new",
        "a was 1 and is not given",
        "b was [2] and is [3]",
        "c was not given and is 'x'",
    ]
    save_used_configs(used / "resumed_2026-01-02_03-04-05", after)
    assert changes_since(used, after) == [], "since it was resumed last"


def test_the_git_diff_is_kept(sources, tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init")
    git("add", "a/config.py")
    git("commit", "-m", "first")
    sources[0].write_text("NUMBER = 100\n")
    save_used_configs(tmp_path / "used", {})
    (patch,) = (tmp_path / "used").iterdir()
    assert patch.name == git("describe", "--always").strip() + ".patch"
    assert "+NUMBER = 100" in patch.read_text()


@pytest.mark.parametrize("trouble", ["no repository", "no git"])
def test_a_run_needs_no_git(trouble, sources, tmp_path, monkeypatch):
    if trouble == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    save_used_configs(tmp_path / "used", {str(sources[0]): "a.module"})
    assert os.listdir(tmp_path / "used") == ["config.py"]
