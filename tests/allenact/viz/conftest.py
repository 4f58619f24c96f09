"""A tiny evaluation whose pictures say which step of which episode they show."""

from collections import Counter

import gymnasium as gym
import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync.evaluation import evaluate
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import SingleProcessVectorSampledTasks
from allenact.base_abstractions.distributions import CategoricalDistr
from allenact.base_abstractions.misc import ActorCriticOutput, Memory, RLStepResult
from allenact.base_abstractions.sensor import Sensor
from allenact.base_abstractions.task import Task, TaskSampler

LENGTHS = {"a0": 3, "a1": 5, "b0": 6}  # environment steps of each episode; samplers "a" and "b"


class StepSensor(Sensor):
    """The number of steps taken so far, [1]."""

    def __init__(self):
        super().__init__("step", gym.spaces.Box(0, 100, (1,), np.float32))

    def get_observation(self, env, task, *args, **kwargs):
        return np.array([task.played], np.float32)


class PictureTask(Task):
    """Ends after `LENGTHS[id]` steps; its picture is one grey, ten times the number of steps played."""

    rendered: Counter = Counter()
    render_error: Exception | None = None
    size = (8, 8)
    played = 0  # num_steps_taken() counts a step only after it has been observed

    @property
    def action_space(self):
        return gym.spaces.Discrete(3)

    def render(self, mode="rgb", *args, **kwargs):
        PictureTask.rendered[self.task_info.get("id")] += 1
        if self.render_error is not None:
            raise self.render_error
        return np.full((*self.size, 3), 10 * self.played, np.uint8)

    def _step(self, action):
        self.played += 1
        return RLStepResult(self.get_observations(), 1.0, None, {})

    def reached_terminal_state(self):
        return False

    def close(self):
        pass


class PictureTaskSampler(TaskSampler):
    last_sampled_task = None
    all_observation_spaces_equal = True

    def __init__(self, ids, mp_ctx=None):
        self.ids, self.given = ids, 0

    @property
    def length(self):
        return len(self.ids) - self.given

    def next_task(self, force_advance_scene=False):
        if self.length == 0:
            return None
        name = self.ids[self.given]
        self.given += 1
        info = {"id": name, "action_names": ["left", "stay", "right"]}
        return PictureTask(None, [StepSensor()], info, LENGTHS[name])

    def close(self):
        pass

    def reset(self):
        self.given = 0

    def set_seed(self, seed):
        pass


class Counting(torch.nn.Module):
    """Prefers an action that depends on the step; its memory counts steps, its value is the step."""

    action_space = gym.spaces.Discrete(3)
    recurrent_memory_specification = {"rnn": ((("layer", 1), ("sampler", None), ("hidden", 2)), torch.float32)}

    def forward(self, observations, memory, prev_actions, masks):
        step = observations["step"]  # [1, N, 1]
        counted = (memory.tensor("rnn") * masks.transpose(0, 1).reshape(1, -1, 1)) + 1  # [1, N, 2]
        logits = torch.nn.functional.one_hot(step[..., 0].long() % 3, 3).float() * 5  # [1, N, 3]
        output = ActorCriticOutput(CategoricalDistr(logits=logits), step, {})
        return output, Memory(rnn=(counted, 1))


@pytest.fixture
def picture_task():
    """The task class, with its counters fresh; attributes set on it are undone."""
    before = dict(vars(PictureTask))
    PictureTask.rendered = Counter()
    yield PictureTask
    for name in ("rendered", "render_error", "size"):
        setattr(PictureTask, name, before[name])


@pytest.fixture
def play(picture_task):
    """Plays three episodes with two samplers; returns the metrics of the tasks and what the suite recorded."""

    def play(suite, ids=(("a0", "a1"), ("b0",))):
        tasks = SingleProcessVectorSampledTasks(PictureTaskSampler, [{"ids": names} for names in ids])
        with tasks:
            result = evaluate(Counting(), tasks, RolloutBlockStorage(), visualizer=suite)
        return [episode.metrics for episode in result.episodes], suite.read_and_reset()

    return play


class Pages:
    """Stands in for the TensorBoard writer: remembers what was written under which tag."""

    def __init__(self):
        self.images, self.videos = {}, {}
        self.videos_dir = None

    def add_image(self, tag, img_tensor, global_step=None, dataformats="CHW"):
        assert dataformats == "HWC"
        self.images[tag] = (img_tensor, global_step)

    def add_vid(self, tag, vid, global_step=None):
        self.videos[tag] = (vid, global_step)


@pytest.fixture
def pages():
    return Pages()
