"""The experiment in README.md, with fewer steps."""

import importlib
import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
FEWER = {"1_000_000": "4096", "200_000": "2048", "50_000": "2048"}


def test_the_experiment_trains_and_validates(tmp_path, monkeypatch, train):
    (code,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for steps, few in FEWER.items():
        assert steps in code
        code = code.replace(steps, few)
    (tmp_path / "hopper_of_the_readme.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hopper_of_the_readme", raising=False)
    config = importlib.import_module("hopper_of_the_readme").HopperConfig()
    run = train(config)
    assert [package.training_steps for package in run.packages] == [2048, 4096]
    assert all("train-metrics/reward" in package.scalars or package.metrics for package in run.packages)
    assert len(run.checkpoints) == 2
    valid = config.make_sampler_fn(**config.valid_task_sampler_args(process_ind=0))
    assert valid.length == 10
