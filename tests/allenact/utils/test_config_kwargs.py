"""Keyword arguments of an experiment, as they are typed."""

import pytest

from allenact.errors import ExperimentConfigError
from allenact.utils.cli import get_args
from allenact.utils.config_kwargs import describe_keyword_arguments, parse_config_kwargs


@pytest.mark.parametrize(
    ("text", "kwargs"),
    [
        ("total_steps=1000", {"total_steps": 1000}),
        ("lr=1e-3 layers=[64,64] task=copy", {"lr": 1e-3, "layers": [64, 64], "task": "copy"}),
        (' joint=true std=null url=a=b name="x" ', {"joint": True, "std": None, "url": "a=b", "name": "x"}),
        ("joint=True free=False std=None steps=1_000_000", {"joint": True, "free": False, "std": None, "steps": 10**6}),
        (
            "sizes=(64,32) name='x' path=~/x set={1,2} day=2026-01-02 task=True-or-so",
            {"sizes": [64, 32], "name": "x", "path": "~/x", "set": "{1,2}", "day": "2026-01-02", "task": "True-or-so"},
        ),
        ('{"task": "a=b"}', {"task": "a=b"}),
    ],
)
def test_assignments(text, kwargs):
    assert parse_config_kwargs(text) == kwargs


@pytest.mark.parametrize("text", ["a = 1", "a=1 b", "a=1 a=2", "a=1, 2", "a=1 b-c=2"])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(ExperimentConfigError, match="name=value"):
        parse_config_kwargs(text)


def test_a_file_whose_name_has_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=2.json").write_text('{"lr": 2}')
    assert parse_config_kwargs("lr=2.json") == {"lr": 2}


class Base:
    """Trains.

    Args:
        total_steps: environment steps, summed over
            all samplers.
        task: which.
    """

    def __init__(self, total_steps, task="copy"):
        pass


class Derived(Base):
    """Trains longer.

    Args:
        patience: how long.
    """

    def __init__(self, patience=None, **kwargs):
        super().__init__(**kwargs)


def test_arguments_are_listed_with_their_defaults_and_what_they_mean():
    lines = [line.strip() for line in describe_keyword_arguments(Derived).splitlines()]
    assert "Derived" in lines[0]
    expected = ["patience=null", "how long.", "total_steps", "environment steps, summed over all samplers."]
    assert lines[1:] == [*expected, 'task="copy"', "which."]


@pytest.mark.parametrize(
    ("typed", "status", "said"),
    [
        (["gym_mujoco_tutorial", "-b", "projects/tutorials", "--help"], 0, "learning_rate=0.0003"),
        (["gym_mujoco_tutorial", "-h", "-b", "projects/tutorials"], 0, "learning_rate=0.0003"),
        (["gym_mujoco_tutorail", "-b", "projects/tutorials", "-h"], 2, 'did you mean "gym_mujoco_tutorial"'),
        (["--help"], 0, "--config_kwargs"),
    ],
)
def test_help_of_an_experiment(typed, status, said, capsys):
    with pytest.raises(SystemExit) as ended:
        get_args(typed)
    assert ended.value.code == status
    printed = capsys.readouterr()
    assert said in printed.out + printed.err
