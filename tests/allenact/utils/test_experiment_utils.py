"""Small helpers of experiment files."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from allenact.errors import CheckpointError, MissingExtraError
from allenact.utils.experiment_utils import (
    OffPolicyPipelineComponent,
    download_checkpoint_from_wandb,
    evenly_distribute_count_into_bins,
)


@pytest.mark.parametrize(
    ("count", "nbins", "expected"), [(10, 4, [3, 3, 2, 2]), (8, 4, [2, 2, 2, 2]), (2, 3, [1, 1, 0]), (0, 2, [0, 0])]
)
def test_counts_are_distributed_evenly(count, nbins, expected):
    assert evenly_distribute_count_into_bins(count, nbins) == expected


def test_old_component_has_its_defaults():
    component = OffPolicyPipelineComponent(data_iterator_builder=list, loss_names=["x"], updates=3)
    assert component.loss_weights is None
    assert component.data_iterator_kwargs_generator(0, [1], None) == {}


class FakeApi:
    """Serves artifacts that contain their own name."""

    def artifact(self, name):
        return SimpleNamespace(download=lambda root: (Path(root) / "ckpt.pt").write_text(name))


def test_checkpoints_are_downloaded_under_their_steps(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Api=FakeApi))
    folder = download_checkpoint_from_wandb("wandb://team/project/run//100//200", str(tmp_path))
    assert folder == str(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "ckpt-100.pt": "team/project/run-step-100:latest",
        "ckpt-200.pt": "team/project/run-step-200:latest",
    }
    file = download_checkpoint_from_wandb("wandb://run//300", str(tmp_path), only_allow_one_ckpt=True)
    assert Path(file).read_text() == "run-step-300:latest"


@pytest.mark.parametrize("address", ["wandb://run", "wandb:////100", "wandb://run//latest", "wandb://run//"])
def test_incomplete_addresses_are_refused(address, tmp_path):
    with pytest.raises(CheckpointError, match="address of the checkpoint is incomplete"):
        download_checkpoint_from_wandb(address, str(tmp_path))


def test_training_continues_from_one_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="one checkpoint"):
        download_checkpoint_from_wandb("wandb://run//1//2", str(tmp_path), only_allow_one_ckpt=True)


def test_wandb_is_optional(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match="needs wandb"):
        download_checkpoint_from_wandb("wandb://run//1", str(tmp_path))
