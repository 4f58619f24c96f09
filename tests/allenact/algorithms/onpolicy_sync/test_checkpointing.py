"""Checkpoint files: their names, what they hold, that reading one runs nothing, and those of AllenAct."""

import dataclasses
import enum
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from allenact.algorithms.onpolicy_sync.checkpointing import (
    CheckpointStore,
    TrainingState,
    decode_plain,
    encode_plain,
    find_checkpoints,
    load_checkpoint,
    load_model_weights,
    step_from_checkpoint,
)
from allenact.algorithms.onpolicy_sync.engine import OnPolicyInference, OnPolicyTrainer
from allenact.errors import CheckpointError
from allenact.testing.experiments import ToyExperiment
from allenact.utils.experiment_utils import Builder, LinearDecay, MultiLinearDecay


def state(steps=0, **more):
    return TrainingState(
        model_state_dict={"weight": torch.arange(3.0)},
        total_steps=steps,
        optimizer_state_dict={"state": {}, "param_groups": []},
        training_pipeline_state_dict={"stage_info_list": [], "rollout_count": 0},
        trainer_seed=5,
        **more,
    )


def touch(folder: Path, *steps: int) -> list[str]:
    """Creates empty files with the names of checkpoints and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [CheckpointStore(folder, "Toy").path(0, step) for step in steps]
    for path in paths:
        path.touch()
    return [str(path) for path in paths]


# Names


def test_file_names(tmp_path):
    store = CheckpointStore(tmp_path, "MiniGridTutorial")
    assert store.path(0, 151552) == tmp_path / "exp_MiniGridTutorial__stage_00__steps_000000151552.pt"
    assert store.path(12, 3 * 10**12).name == "exp_MiniGridTutorial__stage_12__steps_3000000000000.pt"


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("exp_MiniGridTutorial__stage_00__steps_000000151552.pt", 151552),
        ("/a/steps_7/exp_Toy__stage_03__steps_000000000064.pt", 64),
        ("exp_steps_of_a_dance__stage_00__steps_000000000128.pt", 128),
        ("exp_Toy__stage_00__steps_000000000064.renamed.v2.pt", 64),
        ("exp_Ant_num_steps_64__stage_00__steps_000000002000.pt", 2000),
        ("steps_10.pt", 10),
        ("best__steps_about_2048__seed_1.pt", 2048),
    ],
)
def test_steps_from_a_name(name, steps):
    assert step_from_checkpoint(name) == steps


def test_steps_from_the_contents_where_the_name_does_not_tell(tmp_path, caplog):
    CheckpointStore(tmp_path, "Toy").save(state(4096), tmp_path / "best.pt")
    with caplog.at_level("WARNING", logger="allenact"):
        assert step_from_checkpoint(str(tmp_path / "best.pt")) == 4096
    assert "best.pt" in caplog.text


# Finding


def test_a_folder_is_not_searched_below_and_ordered_by_steps(tmp_path):
    files = touch(tmp_path, 1000, 64, 256)
    touch(tmp_path / "below", 1)
    (tmp_path / "notes.txt").touch()
    assert find_checkpoints(str(tmp_path)) == [files[1], files[2], files[0]]


def test_a_glob_can_search_below(tmp_path):
    second, first = touch(tmp_path / "b", 20)[0], touch(tmp_path / "a" / "c", 10)[0]
    assert find_checkpoints(str(tmp_path / "**" / "*.pt")) == [first, second]
    assert find_checkpoints(str(tmp_path / "b" / "*steps_0000*.pt")) == [second]
    assert find_checkpoints(first) == [first]


def test_equal_steps_are_ordered_by_path(tmp_path):
    (b,), (a,) = touch(tmp_path / "b", 10), touch(tmp_path / "a", 10)
    assert find_checkpoints(str(tmp_path / "*" / "*.pt")) == [a, b]


@pytest.mark.parametrize("name", ["run [1]", "what?", "all*of*it", "[]"])
def test_names_with_glob_characters(name, tmp_path):
    (file,) = touch(tmp_path / name, 10)
    touch(tmp_path / "run 1", 20)
    assert find_checkpoints(str(tmp_path / name)) == [file]
    assert find_checkpoints(file) == [file]


GRID = [*range(10240, 143361, 10240), 151552]


@pytest.mark.parametrize(
    ("steps", "interval", "kept"),
    [
        (GRID, 50000, [10240, 51200, 102400, 151552]),
        (GRID, 100000, [10240, 102400, 151552]),
        (GRID, 1, GRID),
        (GRID, 1e9, [10240, 151552]),
        ([0, 10, 20], 10.0, [0, 10, 20]),
        ([0, 10, 20], 5, [0, 10, 20]),  # 5 is as near to 0 as to 10
        ([100], 30, [100]),
    ],
)
def test_thinning(steps, interval, kept, tmp_path):
    touch(tmp_path, *steps)
    found = find_checkpoints(str(tmp_path), approx_step_interval=interval)
    assert [step_from_checkpoint(path) for path in found] == kept


@pytest.mark.parametrize("what", ["", "nothing/*.pt", "missing.pt"])
def test_nothing_found(what, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint was found"):
        find_checkpoints(str(tmp_path / what))


def test_a_path_that_goes_nowhere_is_answered_with_what_is_there(tmp_path):
    for day in (1, 2):
        (tmp_path / "checkpoints" / "Toy" / f"2026-01-0{day}").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"checkpoints/Toy has 2026-01-02, 2026-01-01$"):
        find_checkpoints(str(tmp_path / "checkpoints" / "Toy" / "START_DATE"))
    with pytest.raises(CheckpointError, match=r"checkpoints has Toy$"):
        find_checkpoints(str(tmp_path / "checkpoints" / "Tay" / "START_DATE" / "*.pt"))


# Writing


def test_what_is_saved_is_what_is_loaded(tmp_path, same_state):
    saved = state(
        64,
        scheduler_state={"last_epoch": 3},
        rng_state={"torch": torch.arange(4, dtype=torch.uint8)},
        sampler_states=[{"rng": {"state": 2**127, "inc": 3}, "obs": np.arange(6.0).reshape(2, 3)}, None],
        storage_states={"onpolicy": {"masks": torch.ones(1, 2, 1)}},
        tracker_state={"metrics": [{"reward": 1.0, "task_info": {"id": "a", "path": (1, 2)}}]},
    )
    path = tmp_path / "new folder" / "a.pt"
    CheckpointStore(path.parent, "Toy").save(saved, path)
    loaded = load_checkpoint(path)
    assert loaded.library_versions["torch"]
    for name in TrainingState.__dataclass_fields__:
        if name != "library_versions":
            same_state(getattr(saved, name), getattr(loaded, name))
    assert loaded.is_exact


def test_upstream_keys_lie_at_the_top(tmp_path):
    path = tmp_path / "a.pt"
    CheckpointStore(tmp_path, "Toy").save(state(64, scheduler_state={"last_epoch": 3}), path)
    contents = torch.load(path, weights_only=True)
    assert contents["total_steps"] == 64
    assert contents["trainer_seed"] == 5
    expected = {"model_state_dict", "total_steps", "optimizer_state_dict", "training_pipeline_state_dict"}
    assert contents.keys() >= expected | {"trainer_seed", "scheduler_state"}


@pytest.mark.parametrize("moment", ["while writing", "before it has its name"])
def test_a_failing_write_leaves_the_old_file(moment, tmp_path, monkeypatch):
    store, path = CheckpointStore(tmp_path, "Toy"), tmp_path / "a.pt"
    store.save(state(64), path)

    def fail(*args, **kwargs):
        if moment == "while writing":
            args[1].write(b"half of it")
        raise OSError("no space left on device")

    if moment == "while writing":
        monkeypatch.setattr(torch, "save", fail)
    else:
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        store.save(state(128), path)
    assert load_checkpoint(path).total_steps == 64
    assert os.listdir(tmp_path) == ["a.pt"]


def test_an_unfinished_file_is_no_checkpoint(tmp_path, monkeypatch):
    """What a killed process leaves behind is not found by those who look for checkpoints."""
    store = CheckpointStore(tmp_path, "Toy")
    seen = []
    replace = os.replace

    def look(source, target):
        seen.extend(tmp_path.glob("*.pt"))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    store.save(state(64), tmp_path / "a.pt")
    assert seen == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize(
    "value",
    [
        {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": [1, (2.5, "x"), None, True, b"bytes"]},
        {"empty": np.zeros((0, 3), np.float32), "scalar": np.array(3.0), "bool": np.array([True, False])},
        {"nested": ({"deep": (np.uint8([1, 2]),)},)},
        OrderedDict(a=torch.ones(2)),
        (),
        [],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6.0)[::-2],
    ],
)
def test_encoding_can_be_undone(value, same_state, tmp_path):
    torch.save(encode_plain(value), tmp_path / "file")
    back = decode_plain(torch.load(tmp_path / "file", weights_only=True))
    same_state(dict(value) if isinstance(value, dict) else value, back)
    if isinstance(value, np.ndarray):
        assert back.dtype == value.dtype


def test_numpy_scalars_become_plain_ones():
    assert encode_plain([np.float32(0.5), np.int64(3), np.bool_(True)]) == [0.5, 3, True]
    assert [type(item) for item in encode_plain([np.float32(0.5), np.int64(3), np.bool_(True)])] == [float, int, bool]


# Reading


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.faults("a checkpoint with code in it", "refused; the code is not run", "nothing")
@pytest.mark.parametrize("where", ["model_state_dict", "scheduler_state", "anything"])
def test_reading_a_checkpoint_runs_nothing(where, tmp_path):
    contents = {**state().to_file_contents(), where: Malicious(tmp_path / "executed")}
    torch.save(contents, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "bad.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "flipped"])
def test_a_damaged_file_is_named(damage, tmp_path):
    path = tmp_path / "a.pt"
    CheckpointStore(tmp_path, "Toy").save(state(64), path)
    data = path.read_bytes()
    damaged = {"truncated": data[: len(data) // 2], "text": b"hello", "empty": b"", "flipped": b"\0" * len(data)}
    path.write_bytes(damaged[damage])
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        load_checkpoint(path)


def test_a_file_without_a_model_is_no_checkpoint(tmp_path):
    torch.save({"weights": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="no model_state_dict"):
        load_checkpoint(tmp_path / "a.pt")
    torch.save([1, 2], tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="no model_state_dict"):
        load_checkpoint(tmp_path / "b.pt")


def test_a_misspelt_name_gets_a_suggestion(tmp_path):
    touch(tmp_path, 64)
    with pytest.raises(CheckpointError, match=r"exp_Toy__stage_00__steps_000000000064\.pt"):
        load_checkpoint(tmp_path / "exp_Toy__stage_00__steps_000000000065.pt")


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({"weight": torch.ones(2, 3)}, "bias"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "extra": torch.ones(1)}, "extra"),
        ({"weight": torch.ones(2, 4), "bias": torch.ones(2)}, "2, 4"),
    ],
)
def test_weights_of_another_model(weights, named):
    model = nn.Linear(3, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=named):
        load_model_weights(model, weights, "a.pt")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


# Checkpoints of AllenAct


class Decaying(ToyExperiment):
    """The toy with a schedule of several lines, if asked for, which AllenAct's files then hold."""

    def __init__(self, multi):
        super().__init__()
        self.multi = multi

    def schedule(self):
        if not self.multi:
            return LinearDecay(steps=128, startp=1.0, endp=0.0)
        return MultiLinearDecay(
            [LinearDecay(steps=64, startp=1.0, endp=0.5), LinearDecay(steps=64, startp=0.5, endp=0.0)]
        )

    def training_pipeline(self, **kwargs):
        pipeline = super().training_pipeline()
        pipeline.lr_scheduler_builder = Builder(LambdaLR, {"lr_lambda": self.schedule()})
        return pipeline


UPSTREAM_KEYS = (
    "model_state_dict",
    "total_steps",
    "optimizer_state_dict",
    "training_pipeline_state_dict",
    "trainer_seed",
)


def vars_of(config):
    """The attributes of AllenAct's schedules, which its LambdaLR saves."""
    if not config.multi:
        return {"steps": 128, "startp": 1.0, "endp": 0.0}
    stages = [LinearDecay(steps=64, startp=1.0, endp=0.5), LinearDecay(steps=64, startp=0.5, endp=0.0)]
    return {"stages": stages, "steps": np.cumsum([64, 64]), "total_steps": np.int64(128)}


@pytest.fixture(params=["linear", "several lines", "bare"])
def old(request, tmp_path):
    """An experiment, one run of it to the end, and a checkpoint of its middle as AllenAct writes them."""
    config = Decaying(multi=request.param == "several lines")
    written = []
    with OnPolicyTrainer(
        config, seed=7, sampler_backend="serial", checkpoints=CheckpointStore(tmp_path, "Toy"), send=written.append
    ) as trainer:
        trainer.train()
    whole = {key: value.clone() for key, value in trainer.actor_critic.state_dict().items()}
    ours = torch.load(next(tmp_path.glob("*0064.pt")), weights_only=True)
    contents = {key: ours[key] for key in UPSTREAM_KEYS}
    contents["optimizer_state_dict"]["param_groups"][0].pop("fused", None)
    for info in contents["training_pipeline_state_dict"]["stage_info_list"]:
        if request.param == "bare":  # of an old version
            del info["storage_uuid_to_steps_taken_in_stage"], info["rollout_count"]
    if request.param == "bare":
        contents["training_pipeline_state_dict"]["off_policy_epochs"] = 0
    else:
        optimizer = optim.Adam([nn.Parameter(torch.ones(1))], lr=config.lr)
        scheduler = {**LambdaLR(optimizer, config.schedule()).state_dict(), "last_epoch": 64}
        contents["scheduler_state"] = {**scheduler, "_last_lr": [0.5 * config.lr], "lr_lambdas": [vars_of(config)]}
    path = tmp_path / "exp_Old__stage_00__steps_000000000064.pt"
    torch.save(contents, path)
    return config, path, whole


def train_from(config, path, **kwargs):
    packages = []
    with OnPolicyTrainer(config, seed=99, sampler_backend="serial", send=packages.append) as trainer:
        trainer.train(str(path), **kwargs)
    return trainer, packages


@pytest.mark.filterwarnings("ignore:.*off_policy_epochs")
def test_training_goes_on_from_an_old_checkpoint(old):
    config, path, _ = old
    assert not load_checkpoint(path).is_exact
    trainer, packages = train_from(config, path)
    assert [package.training_steps for package in packages] == [96, 128]
    assert trainer.seed == 7
    (rate,) = {group["lr"] for group in trainer.optimizer.param_groups}
    assert rate == 0
    (first, count) = packages[0].scalars["train-onpolicy-misc/lr"]
    assert first / count == pytest.approx(0.5 * config.lr)
    again, _ = train_from(config, path)
    for key, value in trainer.actor_critic.state_dict().items():
        assert torch.equal(value, again.actor_critic.state_dict()[key]), "seeded from the seed in the file"


def test_training_starts_anew_with_the_weights_of_an_old_checkpoint(old):
    config, path, _ = old
    trainer, packages = train_from(config, path, restart_pipeline=True)
    assert [package.training_steps for package in packages] == [32, 64, 96, 128]
    assert trainer.seed == 99
    (total, count) = packages[0].scalars["train-onpolicy-misc/lr"]
    assert total / count == pytest.approx(config.lr)


@pytest.mark.filterwarnings("ignore:.*off_policy_epochs")
def test_an_old_checkpoint_can_be_evaluated(old):
    config, path, _ = old
    with OnPolicyInference(config, "test", sampler_backend="serial", deterministic_agents=True) as tester:
        package = tester.run_eval(str(path))
        weights = tester.actor_critic.state_dict()
    assert package.training_steps == 64
    assert len(package.metrics) == 6
    for key, value in load_checkpoint(path).model_state_dict.items():
        assert torch.equal(weights[key], value)


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class OldColor(str, enum.Enum):  # noqa: UP042  # as it was written before there was StrEnum
    RED = "red"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (Color.RED, "red"),
        (OldColor.RED, "red"),
        (Level.HIGH, 3),
        ({np.str_("a"): 1, np.int32(2): Level.HIGH, Color.RED: None}, {"a": 1, 2: 3, "red": None}),
        (nn.Parameter(torch.ones(2)), torch.ones(2)),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, 2], dtype=">i4"), np.array([1, 2])),
        (np.array(["a", 2], dtype=object), ["a", 2]),
    ],
)
def test_values_of_derived_classes_can_be_read_again(tmp_path, value, read):
    torch.save(encode_plain(value), tmp_path / "file")
    again = decode_plain(torch.load(tmp_path / "file", weights_only=True))
    if isinstance(read, torch.Tensor | np.ndarray):
        assert (again == read).all()
    else:
        assert again == read


def test_numbers_of_numpy_in_the_optimizer_can_be_read_again(tmp_path):
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter], lr=np.float32(3e-4))
    saved = dataclasses.replace(state(64), optimizer_state_dict=optimizer.state_dict())
    path = CheckpointStore(tmp_path, "Toy").save(saved, tmp_path / "file.pt")
    group = load_checkpoint(str(path or tmp_path / "file.pt")).optimizer_state_dict["param_groups"][0]
    assert group["lr"] == pytest.approx(3e-4)
