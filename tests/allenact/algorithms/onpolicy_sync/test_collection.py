"""What storages are given by the collector."""

import multiprocessing
from contextlib import contextmanager

import pytest
import torch

from allenact.algorithms.onpolicy_sync.collection import RolloutCollector
from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage, RolloutBlockStorage
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import make_vector_tasks
from allenact.base_abstractions.sensor import SensorSuite
from allenact.errors import ExperimentConfigError
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


@contextmanager
def collector(backend="serial"):
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
        yield RolloutCollector(model, tasks, torch.device("cpu"))


@pytest.mark.parametrize("backend", ["serial", "process"])
def test_storages_may_keep_what_they_are_given(backend):
    rollout, keeping = RolloutBlockStorage(), KeepingStorage()
    with collector(backend) as collects:
        collects.initialize([rollout, keeping])
        collects.collect(rollout, [rollout, keeping], 7)
    assert torch.equal(torch.stack(keeping.observations), rollout.observations.tensor("toy"))
    assert torch.equal(torch.stack(keeping.rewards), rollout.rewards)


class PlainStorage(KeepingStorage):
    """Has the arguments of the interface and no others."""

    def add(self, observations, memory, actions, action_log_probs, value_preds, rewards, masks):
        super().add(observations, rewards)


def test_only_storages_that_take_truncation_values_get_them():
    rollout, plain = RolloutBlockStorage(), PlainStorage()
    with collector() as collects:
        collects.initialize([rollout, plain])
        collects.collect(rollout, [rollout, plain], 7, bootstrap_truncated=True)
    assert len(plain.rewards) == 7
    assert rollout._rows["truncation_values"].abs().sum() > 0


def test_a_rollout_storage_without_truncation_values_is_named():
    class Own(RolloutBlockStorage):
        def add(self, observations, memory, actions, action_log_probs, value_preds, rewards, masks):
            raise AssertionError("it is asked before the first step")

    with collector() as collects, pytest.raises(ExperimentConfigError, match="Own cannot bootstrap truncated"):
        collects.collect(Own(), [Own()], 7, bootstrap_truncated=True)


@pytest.mark.parametrize("space", [None, PushRightTask.lower_action_space])
def test_a_mistake_of_the_model_stays_what_it_is(space, monkeypatch):
    def forward(**inputs):
        raise KeyError("its own")

    with collector() as collects:
        collects.initialize([storage := RolloutBlockStorage()])
        collects.actor_critic.observation_space = space
        monkeypatch.setattr(collects.actor_critic, "forward", forward)
        with pytest.raises(KeyError, match="its own"):
            collects.act(storage)
