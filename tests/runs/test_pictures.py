"""Videos of real evaluations: equal numbers with and without them, with OpenGL and without, whoever steps the tasks."""

import numpy as np
import pytest

from allenact.algorithms.onpolicy_sync.inference_engine import OnPolicyInference
from allenact.runs.log_sink import LogSink
from allenact.utils.rendering import BACKEND_VARIABLE, RenderingUnavailable, choose_gl_backend
from allenact.utils.video_utils import SummaryWriter
from allenact.utils.viz_utils import AgentViewViz, VizSuite
from projects.gym_baselines.experiments.mujoco.gym_mujoco_hopper_ddppo import GymMuJoCoHopperConfig


class Hopper(GymMuJoCoHopperConfig):
    """Two samplers with two test tasks each, of which some are filmed."""

    def __init__(self, shown=None):
        super().__init__(total_steps=64, num_steps=32, update_repeats=1, save_interval=64)
        self.metric_interval = 1
        self.shown = shown

    def machine_params(self, mode="train", **kwargs):
        suite = VizSuite(mode="test", episode_ids=self.shown, video=AgentViewViz(fps=10, max_video_length=5))
        return {"nprocesses": 2, "devices": [], "visualizer": suite}

    def training_pipeline(self, **kwargs):
        pipeline = super().training_pipeline()
        pipeline.training_settings.num_mini_batch = 1
        return pipeline

    def test_task_sampler_args(self, process_ind, *args, **kwargs):
        return {
            **super().test_task_sampler_args(process_ind, *args, **kwargs),
            "max_tasks": 2,
            "gym_env_kwargs": {"width": 48, "height": 40, "max_episode_steps": 20},
        }


@pytest.fixture
def evaluate(train):
    """Evaluates one checkpoint of a short run."""
    checkpoint = str(train(Hopper()).checkpoints[-1])

    def run(backend="batched", visualize=True, shown=None):
        with OnPolicyInference(
            Hopper(shown), "test", visualize=visualize, sampler_backend=backend, max_sampler_processes=2
        ) as engine:
            return engine.run_eval(checkpoint)

    return run


def filmed(package):
    """Returns for each episode that was filmed its pictures, [H, W, 3] each."""
    return {
        episode: [np.asarray(datum) for step in steps for datum in step.values()]
        for episode, steps in package.viz_data.items()
    }


@pytest.mark.parametrize(
    "backend", ["batched", *(pytest.param(name, marks=pytest.mark.slow) for name in ("serial", "process"))]
)
def test_without_opengl_there_are_drawings_and_one_warning(backend, evaluate, same_state, monkeypatch, caplog):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    monkeypatch.setenv(BACKEND_VARIABLE, "none: switched off for a test")
    package = evaluate(backend)
    warnings = [record.message for record in caplog.records if "drawings of paths" in record.message]
    assert len(warnings) == 1
    assert "apt-get install -y libegl1 libgl1-mesa-dri libosmesa6" in warnings[0]
    pictures = filmed(package)
    assert len(pictures) == 4
    for frames in pictures.values():
        assert [frame.shape for frame in frames] == [(40, 48, 3)] * 5
        assert (frames[0] != frames[-1]).any()
    same_state(package.metrics, evaluate(backend, visualize=False).metrics)


@pytest.mark.slow
def test_pictures_do_not_depend_on_how_tasks_are_stepped_and_change_nothing(evaluate, same_state, tmp_path):
    try:
        choose_gl_backend()
    except RenderingUnavailable as error:
        pytest.skip(str(error))
    bare = evaluate(visualize=False)
    packages = [evaluate(backend) for backend in ("batched", "serial", "process")]
    for package in packages:
        same_state(package.metrics, bare.metrics)
        same_state(filmed(package), filmed(packages[0]))
    ids = [task["task_info"]["id"] for task in bare.metrics]
    same_state(set(evaluate(shown=ids[2:3]).viz_data), set(ids[2:3]))

    with SummaryWriter(str(tmp_path / "tb"), videos_dir=tmp_path / "videos") as writer:
        LogSink(writer=writer, visualizer=Hopper().machine_params()["visualizer"]).write([packages[0]])
    (video,) = (tmp_path / "videos").iterdir()
    assert video.name.startswith("test_agent_view_group0__steps_000000000064__random")
