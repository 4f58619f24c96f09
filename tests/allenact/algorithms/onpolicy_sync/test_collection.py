"""What storages are given by the collector."""

import multiprocessing

import pytest
import torch

from allenact.algorithms.onpolicy_sync.collection import RolloutCollector
from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage, RolloutBlockStorage
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import make_vector_tasks
from allenact.base_abstractions.sensor import SensorSuite
from allenact.testing.tasks import PushRightTask, ToySensor, ToyTaskSampler
from allenact_plugins.gym_plugin.gym_models import MemorylessActorCritic


class KeepingStorage(ExperienceStorage):
    """Keeps the tensors that it is given, as storages written for AllenAct may."""

    total_experiences = 0

    def initialize(self, *, observations, **kwargs):
        self.observations, self.rewards = [observations["toy"]], []

    def add(self, observations, rewards, **kwargs):
        self.observations.append(observations["toy"])
        self.rewards.append(rewards)

    def to(self, device):
        pass

    def set_partition(self, index, num_parts):
        pass


@pytest.mark.parametrize("backend", ["serial", "process"])
def test_storages_may_keep_what_they_are_given(backend):
    spaces = SensorSuite([ToySensor(PushRightTask.observation_size)]).observation_spaces
    model = MemorylessActorCritic("toy", PushRightTask.lower_action_space, spaces)
    args = [{"task_class": PushRightTask, "seed": seed, "max_steps": 5} for seed in range(3)]
    with make_vector_tasks(
        ToyTaskSampler,
        args,
        action_space=model.action_space,
        backend=backend,
        max_processes=2,
        mp_ctx=multiprocessing.get_context("fork"),
    ) as tasks:
        rollout, keeping = RolloutBlockStorage(), KeepingStorage()
        collector = RolloutCollector(model, tasks, torch.device("cpu"))
        collector.initialize([rollout, keeping])
        collector.collect(rollout, [rollout, keeping], 7)
    assert torch.equal(torch.stack(keeping.observations), rollout.observations.tensor("toy"))
    assert torch.equal(torch.stack(keeping.rewards), rollout.rewards)
