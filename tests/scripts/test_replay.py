"""From a checkpoint to a page or a video of an episode."""

import base64
import json
import re

import numpy as np
import pytest

from allenact.errors import ExperimentNotFoundError, UsageError
from allenact.runs.run_directory import RunDirectory, SaveDirFormat, save_used_configs
from allenact.utils.experiment_loading import load_experiment
from projects.gym_baselines.experiments.mujoco.gym_mujoco_hopper_ddppo import GymMuJoCoHopperConfig
from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig
from scripts import replay

START = "2026-01-02_03-04-05"
EXPERIMENT = "projects/gym_baselines/experiments/mujoco/gym_mujoco_hopper_ddppo.py"


class SmallHopper(GymMuJoCoHopperConfig):
    """A run of one rollout."""

    def __init__(self):
        super().__init__(total_steps=64, num_steps=64, update_repeats=1, save_interval=64)

    def machine_params(self, mode="train", **kwargs):
        return {"nprocesses": 1, "devices": []}

    def training_pipeline(self, **kwargs):
        pipeline = super().training_pipeline()
        pipeline.training_settings.num_mini_batch = 1
        return pipeline


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint where a run puts it, with the record of what was run."""
    from allenact.algorithms.onpolicy_sync.checkpointing import CheckpointStore
    from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer

    paths = RunDirectory(tmp_path_factory.mktemp("out"), "Gym-MuJoCo-Hopper-v2-PPO")
    written = []
    store = CheckpointStore(paths.checkpoints(START), GymMuJoCoHopperConfig.tag())
    with OnPolicyTrainer(SmallHopper(), seed=0, checkpoints=store, send=written.append) as trainer:
        trainer.train()
    save_used_configs(paths.used_configs(START), load_experiment(EXPERIMENT, ".").source_files)
    return next(path for path in written if hasattr(path, "suffix"))


def content_of(page):
    return json.loads(re.search(r"^const episode = (.*);$", page, re.MULTILINE)[1])


def test_page_holds_the_motion_and_nothing_from_elsewhere(checkpoint, capsys):
    assert replay.main([str(checkpoint), "--max_steps", "5"]) == 0
    folder = replay.RunFolders.of(checkpoint).videos
    assert folder == checkpoint.parents[3] / "videos" / checkpoint.parent.parent.name / START
    page = folder / f"replay__{checkpoint.stem}__episode_0.html"
    said = capsys.readouterr().out
    assert said.startswith("5 steps, return ")
    assert str(page) in said
    text = page.read_text()
    assert not re.search(r"(src|href)=|https?://|@import|fetch\(", text)
    content = content_of(text)
    poses = np.frombuffer(base64.b64decode(content["poses"]), "<f4").reshape(5, len(content["geoms"]), 7)
    assert [geom["kind"] for geom in content["geoms"]] == ["plane"] + ["capsule"] * 4
    np.testing.assert_allclose(np.linalg.norm(poses[..., 3:], axis=-1), 1, atol=1e-6)
    assert poses[0, 1, 2] == pytest.approx(1.25, abs=0.01)  # the torso stands
    assert (poses[0, 1:] != poses[-1, 1:]).any()
    assert [len(trace["values"]) for trace in content["traces"]] == [5, 5]
    replay.main([str(checkpoint), "--max_steps", "5"])
    again = folder / f"{page.stem}-1.html"  # nothing is overwritten
    assert content_of(again.read_text()) == content
    replay.main([str(checkpoint), "--max_steps", "5", "--episode", "1"])
    assert content_of((folder / page.name.replace("episode_0", "episode_1")).read_text())["poses"] != content["poses"]


def test_video(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    monkeypatch.setenv("ALLENACT_GL_BACKEND", "none: for a test")
    path = tmp_path / "new" / "episode.mp4"
    assert replay.main([str(checkpoint), "--format", "mp4", "--max_steps", "3", "-o", str(path)]) == 0
    assert path.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("layout", list(SaveDirFormat))
def test_folders_of_the_run_are_found_from_the_checkpoint(layout, tmp_path):
    paths = RunDirectory(tmp_path, "Toy", "checkpoints", layout)
    folders = replay.RunFolders.of(paths.checkpoints(START) / "exp.pt")
    if layout is SaveDirFormat.NESTED:
        assert folders.used_configs == paths.used_configs(START)
        assert folders.videos == paths.videos(START)
    plain = RunDirectory(tmp_path, "Toy", "", layout)
    folders = replay.RunFolders.of(plain.checkpoints(START) / "exp.pt")
    assert (folders.used_configs, folders.videos) == (plain.used_configs(START), plain.videos(START))


def test_experiment_is_taken_from_the_copy_when_the_original_is_gone(checkpoint, tmp_path):
    folder = replay.RunFolders.of(tmp_path / "exp_Lonely__stage_00__steps_000000000064.pt").used_configs
    folder.mkdir()
    source = "from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig as Base\n"
    source += "class Lonely(Base):\n    @classmethod\n    def tag(cls):\n        return 'Lonely'\n"
    (folder / "lonely_experiment.py").write_text("### THIS FILE ORIGINALLY LOCATED AT '/gone.py'\n\n" + source)
    (folder / "config_kwargs.json").write_text('{"total_steps": 4096}')
    config = replay.find_experiment(tmp_path / "exp_Lonely__stage_00__steps_000000000064.pt")
    assert (config.tag(), config.total_steps) == ("Lonely", 4096)
    config = replay.find_experiment(tmp_path / "exp_Lonely__stage_00__steps_000000000064.pt", "num_eval_tasks=2")
    assert (config.total_steps, config.num_eval_tasks) == (GymMuJoCoTutorialExperimentConfig().total_steps, 2)


def test_what_goes_wrong_says_what_to_do(checkpoint, tmp_path, capsys):
    lost = tmp_path / "exp_Lost__stage_00__steps_000000000001.pt"
    lost.write_bytes(b"")
    with pytest.raises(ExperimentNotFoundError, match="--experiment"):
        replay.find_experiment(lost)
    assert replay.main([str(tmp_path / "no.pt")]) == 2
    assert "no such checkpoint" in capsys.readouterr().err
    for number in (10000, -1):
        with pytest.raises(UsageError, match=f"--episode {number}"):
            replay.make_task(GymMuJoCoHopperConfig(), number)
