"""Keyword arguments of an experiment, as they are typed."""

import pytest

from allenact.errors import ExperimentConfigError
from allenact.utils.config_kwargs import parse_config_kwargs


@pytest.mark.parametrize(
    ("text", "kwargs"),
    [
        ("total_steps=1000", {"total_steps": 1000}),
        ("lr=1e-3 layers=[64,64] task=copy", {"lr": 1e-3, "layers": [64, 64], "task": "copy"}),
        (' joint=true std=null url=a=b name="x" ', {"joint": True, "std": None, "url": "a=b", "name": "x"}),
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
