"""From a running evaluation to pages in TensorBoard: which episodes, which steps, under which tags."""

import io
import pickle
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import VectorTasks
from allenact.errors import TaskWorkerError
from allenact.pipeline.builder import Builder
from allenact.utils.rendering import RenderingUnavailable
from allenact.utils.video_utils import SummaryWriter
from allenact.viz import AbstractViz, ActorViz, AgentViewViz, TensorViz1D, TensorViz2D, TrajectoryViz, VizSuite

RENDER = "vector_task__render__vector_task_sep__{'mode': 'raw_rgb_list'}"
LOG_PROBS = "rollout_or_actor_critic__action_log_probs"
MEMORY = "rollout_or_actor_critic__memory_first_last__rollout_or_actor_critic_sep__rnn"


class Kept(AbstractViz):
    """Records what it is told to and draws nothing."""

    def log(self, log_writer, task_outputs, render, num_steps):
        pass


def frames_of(video) -> list[np.ndarray]:
    gif = Image.open(io.BytesIO(video.encoded_image_string))
    frames = []
    for index in range(gif.n_frames):
        gif.seek(index)
        frames.append(np.asarray(gif.convert("RGB")))
    return frames


def brightness(images) -> list[int]:
    return [round(float(np.asarray(image).mean()) / 10) for image in images]


# Recording


def test_every_step_of_every_episode_is_recorded_under_its_id(play):
    suite = VizSuite(view=AgentViewViz())
    assert suite.empty()
    metrics, data = play(suite)
    assert {task["task_info"]["id"] for task in metrics} == set(data) == {"a0", "a1", "b0"}
    # frame k is the view before action k, so there are as many as steps and the last view is missing
    assert brightness(step[RENDER] for step in data["a0"]) == [0, 1, 2]
    assert brightness(step[RENDER] for step in data["a1"]) == [0, 1, 2, 3, 4]
    assert brightness(step[RENDER] for step in data["b0"]) == [0, 1, 2, 3, 4, 5]
    assert suite.empty()


def test_decisions_are_attached_to_the_step_they_were_taken_in(play):
    sources = ["value_preds", ("observations", "step"), ("memory_first_last", "rnn")]
    _, data = play(VizSuite(kept=Kept(rollout_sources=sources, actor_critic_source=True)))

    def values(episode, datum):
        return [np.asarray(step[datum]).ravel().tolist() for step in data[episode] if datum in step]

    assert values("a0", "rollout_or_actor_critic__value_preds") == [[0], [1], [2]]
    observations = "rollout_or_actor_critic__observations__rollout_or_actor_critic_sep__step"
    assert values("a0", observations) == [[0], [1], [2]]
    assert values("a0", MEMORY) == [[1, 1], [2, 2], [3, 3]]
    # the last action of a sampler's last episode never reaches the storage that is left
    assert values("a1", MEMORY) == [[1, 1], [2, 2], [3, 3], [4, 4]]
    assert values("b0", "critic_value") == [[0], [1], [2], [3], [4], [5]]
    for episode in data.values():
        for step, datum in enumerate(episode):
            if "actor_probs" in datum:
                assert np.argmax(datum["actor_probs"]) == step % 3


def test_recording_does_not_change_the_evaluation(play):
    with_pictures, _ = play(VizSuite(view=AgentViewViz(), probs=ActorViz()))
    without, _ = play(VizSuite())
    assert with_pictures == without


def test_only_episodes_that_will_be_shown_are_rendered(play, picture_task):
    _, data = play(VizSuite(episode_ids=["b0"], view=AgentViewViz()))
    assert set(data) == {"b0"}
    assert picture_task.rendered == {"b0": 6}


def test_own_episodes_of_a_visualiser_are_added_unless_forced(play, picture_task):
    def suite(force):
        own = AgentViewViz(episode_ids=["a0"])
        return VizSuite(episode_ids=["b0"], force_episodes_and_max_episodes_in_group=force, view=own, probs=ActorViz())

    _, data = play(suite(force=False))
    assert set(data) == {"a0", "b0"}
    assert picture_task.rendered == {"a0": 3}  # b0 is for ActorViz, which needs no pictures
    picture_task.rendered.clear()
    _, data = play(suite(force=True))
    assert set(data) == {"b0"}
    assert picture_task.rendered == {"b0": 6}


def test_video_length_bounds_what_is_rendered(play, picture_task):
    play(VizSuite(view=AgentViewViz(max_video_length=2)))
    assert picture_task.rendered == {"a0": 2, "a1": 2, "b0": 2}
    picture_task.rendered.clear()
    play(VizSuite(view=AgentViewViz(max_video_length=2), whole=AgentViewViz(label="whole")))
    assert picture_task.rendered == {"a0": 3, "a1": 5, "b0": 6}


def test_large_pictures_are_shrunk(play, picture_task):
    picture_task.size = (30, 60)
    _, data = play(VizSuite(view=AgentViewViz(max_render_size=20)))
    assert np.asarray(data["a0"][0][RENDER]).shape == (10, 20, 3)


def test_long_episode_of_large_pictures_stays_small(play, picture_task, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    textured = np.sort(noise, axis=0)  # smooth downwards, noise to the right
    monkeypatch.setattr(picture_task, "render", lambda self, mode="rgb": textured)
    _, data = play(VizSuite(view=AgentViewViz()))
    bytes_per_step = len(pickle.dumps(data)) / sum(map(len, data.values()))
    assert 1000 * bytes_per_step < 100e6


def test_nothing_is_asked_for_if_nothing_is_wanted(play, picture_task):
    suite = VizSuite(paths=TrajectoryViz())
    _, data = play(suite)
    assert data == {}
    assert not picture_task.rendered


def test_suite_and_data_travel_to_other_processes(play, pages):
    suite = pickle.loads(pickle.dumps(VizSuite(view=AgentViewViz(), curve=TensorViz1D())))
    metrics, data = play(suite)
    suite.log(pages, metrics, pickle.loads(pickle.dumps(data)), num_steps=3)
    assert set(pages.videos) == {"valid/agent_view_group0"}
    assert set(pages.images) == {"valid/action_log_probs_group0"}


# What goes wrong


def test_evaluation_goes_on_when_rendering_fails(play, picture_task, caplog):
    picture_task.render_error = RenderingUnavailable("cannot draw", do="apt-get install -y libegl1")
    metrics, data = play(VizSuite(view=AgentViewViz(), curve=TensorViz1D()))
    assert len(metrics) == 3
    assert picture_task.rendered == {"a0": 2, "b0": 2}  # the second time for a drawing without OpenGL
    (warning,) = [record.message for record in caplog.records if "No pictures" in record.message]
    assert "apt-get install -y libegl1" in warning
    assert all(LOG_PROBS in step for step in data["a0"])


def test_tasks_are_drawn_without_opengl_where_there_is_none(play, picture_task, caplog, monkeypatch):
    def render(self, mode="rgb", without_opengl=False):
        if not without_opengl:
            raise RenderingUnavailable("no OpenGL back end works.", do="apt-get install -y libosmesa6")
        return np.full((8, 8, 3), 10 * self.played, np.uint8)

    monkeypatch.setattr(picture_task, "render", render)
    _, data = play(VizSuite(view=AgentViewViz(), whole=AgentViewViz(episode_ids=["b0"])))
    assert brightness(step[RENDER] for step in data["a1"]) == [0, 1, 2, 3, 4]
    assert brightness(step[RENDER] for step in data["b0"]) == [0, 1, 2, 3, 4, 5]
    (warning,) = [record.message for record in caplog.records]
    assert "drawings of paths and joints" in warning
    assert "apt-get install -y libosmesa6" in warning


@pytest.mark.parametrize(("viz", "asked"), [(AgentViewViz(), True), (ActorViz(), False)])
def test_only_who_wants_pictures_finds_out_how_to_draw(viz, asked, monkeypatch):
    calls = []

    def nothing_works():
        calls.append(1)
        raise RenderingUnavailable("nothing works")

    monkeypatch.setattr("allenact.viz.suite.choose_gl_backend", nothing_works)
    VizSuite(viz=viz).prepare()
    assert bool(calls) == asked


def test_error_that_closed_the_samplers_is_not_hidden(play, monkeypatch):
    def render_and_die(tasks, mode):
        tasks.close()
        raise TaskWorkerError("worker 0 died")

    monkeypatch.setattr(VectorTasks, "render", render_and_die)
    with pytest.raises(TaskWorkerError, match="worker 0 died"):
        play(VizSuite(view=AgentViewViz()))


def test_any_other_failure_is_reported_once(play, caplog):
    suite = VizSuite(view=AgentViewViz())
    suite._recorder.record_views = lambda *args: 1 / 0
    metrics, data = play(suite)
    assert len(metrics) == 3
    assert data == {}
    assert caplog.text.count("Recording the episodes failed") == 1


def test_tiled_picture_needs_a_single_sampler(play, caplog):
    source = ("render", {"mode": "rgb_array"})
    play(VizSuite(view=AgentViewViz(vector_task_source=source)))
    assert "raw_rgb_list" in caplog.text
    caplog.clear()
    _, data = play(VizSuite(view=AgentViewViz(vector_task_source=source)), ids=[("a0",)])
    assert [len(steps) for steps in data.values()] == [3]
    assert caplog.text == ""


def test_misspelt_rollout_source_is_reported_once(play, caplog):
    _, data = play(VizSuite(curve=TensorViz1D("action_log_prob"), probs=ActorViz()))
    assert caplog.text.count("Cannot record action_log_prob") == 1
    assert "actor_probs" in data["a0"][0]


def test_tasks_without_id_are_reported_once_and_skipped(play, caplog):
    metrics, data = play(VizSuite(path_to_id=("task_info", "name"), view=AgentViewViz()))
    assert data == {}
    assert len(metrics) == 3
    assert caplog.text.count("have no episode id") == 1


def test_missing_episodes_are_named_in_one_warning(play, pages, caplog):
    suite = VizSuite(episode_ids=["b0", "no such", "nor this"], view=AgentViewViz())
    metrics, data = play(suite)
    suite.log(pages, metrics, data, num_steps=0)
    assert set(pages.videos) == {"valid/agent_view_group0"}
    (warning,) = [record.message for record in caplog.records]
    assert "no such, nor this" in warning


def test_failing_visualiser_does_not_stop_the_others(play, pages, caplog):
    class Broken(AbstractViz):
        def log(self, log_writer, task_outputs, render, num_steps):
            raise KeyError("oh no")

    suite = VizSuite(broken=Broken(label="broken"), view=AgentViewViz())
    metrics, data = play(suite)
    suite.log(pages, metrics, data, num_steps=0)
    assert 'Drawing "broken" failed' in caplog.text
    assert pages.videos


def test_unknown_argument_is_reported_with_the_nearest(caplog):
    AgentViewViz(max_episode_in_group=2)
    assert 'unused argument "max_episode_in_group". did you mean "max_episodes_in_group"?' in caplog.text


# Pages


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [["a0", "b0", "a1"]]),  # in the order in which the tasks ended
        ({"max_episodes_in_group": 2}, [["a0", "b0"], ["a1"]]),
        ({"episode_ids": ["b0", "a0"]}, [["b0", "a0"]]),
        ({"episode_ids": [["a1"], ["b0", "a0"]], "max_episodes_in_group": 1}, [["a1"], ["b0", "a0"]]),
    ],
)
def test_pages(play, settings, expected):
    viz = AgentViewViz()
    metrics, data = play(VizSuite(**settings, view=viz))
    assert [episodes for _, episodes in viz.pages(viz.ids_of(metrics), data)] == expected


def test_page_numbers_do_not_move_when_a_page_is_empty(play, pages):
    suite = VizSuite(episode_ids=[["no such"], ["a0"]], mode="test", view=AgentViewViz(label="video"))
    metrics, data = play(suite)
    suite.log(pages, metrics, data, num_steps=12)
    assert set(pages.videos) == {"test/video_group1"}
    assert pages.videos["test/video_group1"][1] == 12


def test_own_page_size_wins_unless_forced():
    own = AgentViewViz(max_episodes_in_group=3)
    VizSuite(max_episodes_in_group=5, view=own)
    assert own.max_episodes_in_group == 3
    VizSuite(max_episodes_in_group=5, force_episodes_and_max_episodes_in_group=True, view=own)
    assert own.max_episodes_in_group == 5


def test_visualisers_come_by_position_by_name_or_as_builders():
    positional = AgentViewViz()
    suite = VizSuite(
        None,
        ("task_info", "id"),
        "test",
        False,
        8,
        positional,
        Builder(ActorViz, {"label": "built"}),
        x=TrajectoryViz(),
        y=None,
    )
    assert suite.viz[0] is positional
    assert [viz.label for viz in suite.viz] == ["agent_view", "built", "trajectory"]
    assert {viz.mode for viz in suite.viz} == {"test"}


# Videos


def test_video_tiles_episodes_and_freezes_those_that_are_over(play, pages, picture_task):
    picture_task.size = (30, 40)
    suite = VizSuite(episode_ids=["a0", "b0"], view=AgentViewViz(fps=10, max_clip_length=4))
    metrics, data = play(suite)
    suite.log(pages, metrics, data, num_steps=0)
    frames = frames_of(pages.videos["valid/agent_view_group0"][0])
    assert len(frames) == 6
    assert frames[0].shape == (30, 80, 3)
    corners = [(int(frame[-1, 39, 0]), int(frame[-1, 79, 0])) for frame in frames]  # away from the captions
    np.testing.assert_allclose(
        corners, [(0, 0), (10, 10), (20, 20), (12, 30), (12, 40), (12, 50)], atol=2
    )  # 12: the last frame, darker


def test_video_is_a_file_as_well_and_never_overwritten(play, pages, picture_task, tmp_path):
    picture_task.size = (31, 40)
    pages.videos_dir = tmp_path / "videos"
    suite = VizSuite(
        mode="test", view=AgentViewViz(label="my video", fps=10, max_video_length=4), max_episodes_in_group=2
    )
    metrics, data = play(suite)
    for _ in range(2):
        suite.log(pages, metrics, data, num_steps=1500)
    names = sorted(path.name for path in pages.videos_dir.iterdir())
    first = "test_my_video_group0__steps_000000001500__a0_b0"
    second = "test_my_video_group1__steps_000000001500__a1"
    assert names == [f"{first}-1.mp4", f"{first}.mp4", f"{second}-1.mp4", f"{second}.mp4"]
    probe = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-i", pages.videos_dir / f"{first}.mp4"], capture_output=True, text=True
    )
    for expected in ("Video: h264", "yuv420p", "80x32", "10 fps", "00:00:00.40"):
        assert expected in probe.stderr


def test_file_that_cannot_be_written_leaves_the_video_in_tensorboard(play, pages, tmp_path, caplog):
    (tmp_path / "videos").write_text("in the way")
    pages.videos_dir = tmp_path / "videos"
    suite = VizSuite(view=AgentViewViz())
    metrics, data = play(suite)
    suite.log(pages, metrics, data, num_steps=0)
    assert set(pages.videos) == {"valid/agent_view_group0"}
    assert "could not be written" in caplog.text


def test_caption_is_drawn(play, pages, picture_task):
    picture_task.size = (40, 60)
    suite = VizSuite(episode_ids=["a0"], view=AgentViewViz())
    metrics, data = play(suite)
    suite.log(pages, metrics, data, num_steps=0)
    (first, *_) = frames_of(pages.videos["valid/agent_view_group0"][0])
    assert first[:20, :30].max() > 200
    assert first[20:].max() < 20


def test_tensorboard_holds_the_video_and_the_figures(play, tmp_path):
    suite = VizSuite(
        mode="test",
        video=AgentViewViz(label="episode_vid", max_video_length=4, fps=30),
        probs=ActorViz(),
        log_probs=TensorViz1D(),
        memory=TensorViz2D(figsize=(3, 3)),
    )
    metrics, data = play(suite)
    with SummaryWriter(str(tmp_path)) as writer:
        suite.log(writer, task_outputs=metrics, render=data, num_steps=1234)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {
        "test/episode_vid_group0",
        "test/action_probs_group0",
        "test/action_log_probs_group0",
        "test/memory_first_last/rnn_group0",
    }
    (video,) = events.Images("test/episode_vid_group0")
    assert video.step == 1234
    assert len(frames_of(video)) == 4
    (figures,) = events.Images("test/action_probs_group0")
    assert (figures.width, figures.height) == (200, 1000)  # 2 x 2 figures of 1 x 5 inches


# Imports
