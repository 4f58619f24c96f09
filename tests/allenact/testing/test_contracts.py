"""Each check finds the fault it is for."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.base_abstractions.misc import RLStepResult
from allenact.base_abstractions.sensor import Sensor
from allenact.testing.contracts import (
    ContractError,
    check_sensor,
    check_storage,
    check_task,
    check_task_sampler,
)
from allenact.testing.tasks import CopyTask, EndlessRewardTask, ToySensor, ToyTaskSampler


def new_task(task_class, **kwargs):
    return ToyTaskSampler(task_class, **kwargs).next_task()


def altered(**methods):
    """Returns EndlessRewardTask with some methods replaced."""
    return type("Altered", (EndlessRewardTask,), methods)


def step_without_end(self, action):
    self._num_steps_taken += 1
    return RLStepResult(self.get_observations(), 1.0, self.is_done(), {})


@pytest.mark.parametrize(
    ("task_class", "message"),
    [
        (altered(play=lambda self, action: float("nan")), "finite number as reward"),
        (altered(num_steps_taken=lambda self: 0, reached_max_steps=lambda self: False), "counts its steps"),
        (altered(reached_max_steps=lambda self: False), "is over after max_steps"),
        (altered(reached_terminal_state=lambda self: True), "is not over"),
        (altered(metrics=lambda self: {"colour": "red"}), 'metric "colour"'),
        (altered(metrics=lambda self: None), "metrics.. returns a dict"),
        (altered(_step=lambda self, action: RLStepResult({}, 1.0, None, {})), "observes what its observation space"),
        (altered(get_observations=lambda self: {"toy": np.full(1, 2.0, np.float32)}), "stays within the bounds"),
        (altered(get_observations=lambda self: {"toy": np.full(1, np.nan)}), "stays within the bounds"),
        (altered(get_observations=lambda self: {"toy": np.zeros(2)}), "shape of its observation space"),
        (altered(render=lambda self, mode: np.zeros((2, 2))), "RGB image"),
        (altered(step=step_without_end), "raises after the end"),
    ],
)
def test_faulty_tasks(task_class, message):
    with pytest.raises(ContractError, match=message):
        check_task(new_task(task_class), check_render=True)


def test_observations_of_changing_type():
    class Changing(ToySensor):
        def get_observation(self, env, task, *args, **kwargs):
            observation = super().get_observation(env, task)
            return observation if task.num_steps_taken() < 3 else observation.astype(np.float64)

    with pytest.raises(ContractError, match="same shapes and types"):
        check_task(new_task(CopyTask, sensors=[Changing(4)]))


def faulty_sampler(**methods):
    cls = type("Faulty", (ToyTaskSampler,), methods)
    return lambda: cls(CopyTask, max_tasks=20)


def lose_the_generator(self, state):
    task = ToyTaskSampler.load_state_dict(self, state)
    self.world.rng = np.random.default_rng(99)
    return task


@pytest.mark.parametrize(
    ("make_sampler", "message"),
    [
        (faulty_sampler(next_task=lambda self, force_advance_scene=False: None), "first next_task.. of Faulty"),
        (faulty_sampler(length=property(lambda self: 20)), "length of Faulty falls by one"),
        (faulty_sampler(reset=lambda self: setattr(self, "max_tasks", 0)), "has a task after reset"),
        (faulty_sampler(set_seed=lambda self, seed: None), "same tasks for the same seed"),
        (faulty_sampler(load_state_dict=lose_the_generator), "continues equally"),
        (
            faulty_sampler(state_dict=lambda self, task: {"env": {"objects": [1, self]}}),
            r"plain values, arrays and tensors(.|\n)*state\['env'\]\['objects'\]\[1\] is a Faulty",
        ),
    ],
)
def test_faulty_samplers(make_sampler, message):
    with pytest.raises(ContractError, match=message):
        check_task_sampler(make_sampler)


def test_tasks_that_use_the_global_generators():
    class GlobalDice(CopyTask):
        def _draw(self):
            self.env.values["shown"] = np.random.randint(4)
            self.env.show(self.env.values["shown"])

    with pytest.raises(ContractError, match="same tasks for the same seed"):
        check_task_sampler(lambda: ToyTaskSampler(GlobalDice))


def test_samplers_that_cannot_be_saved_are_fine():
    class Unsaved(ToyTaskSampler):
        def state_dict(self, task):
            return None

    check_task_sampler(lambda: Unsaved(CopyTask))


def test_sensors():
    class Outside(Sensor):
        def get_observation(self, env, task, *args, **kwargs):
            return 5.0

    task = new_task(CopyTask)
    check_sensor(ToySensor(4), task.env, task)
    with pytest.raises(ContractError, match='"far" stays within the bounds'):
        check_sensor(Outside("far", gym.spaces.Box(0, 1, ())), task.env, task)


def test_our_storage_keeps_the_contract():
    check_storage(RolloutBlockStorage)


class LosesARow(RolloutBlockStorage):
    def batched_experience_generator(self, num_mini_batch):
        yield from list(super().batched_experience_generator(num_mini_batch))[1:]


class MixesActions(RolloutBlockStorage):
    def batched_experience_generator(self, num_mini_batch):
        for batch in super().batched_experience_generator(num_mini_batch):
            yield {**batch, "actions": batch["actions"].flip(0)}


class ForgetsTheNewest(RolloutBlockStorage):
    def agent_input_for_next_step(self):
        agent_input = super().agent_input_for_next_step()
        return {**agent_input, "observations": {"marks": torch.zeros_like(agent_input["observations"]["marks"])}}


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        (LosesARow, "every row exactly once"),
        (MixesActions, '"actions" of MixesActions belong'),
        (ForgetsTheNewest, "returns the newest observation"),
    ],
)
def test_faulty_storages(storage, message):
    with pytest.raises(ContractError, match=message):
        check_storage(storage)
