"""Running statistics in training: which storages give them their numbers, and what is said if one does not."""

import pytest
import torch

from allenact.algorithms.onpolicy_sync.storage import MiniBatchStorageMixin, RolloutBlockStorage, RolloutStorage
from allenact.base_abstractions.sensor import SensorSuite
from allenact.embodiedai.models.basic_models import LinearActorCritic
from allenact.pipeline.builder import Builder
from allenact.testing.experiments import ToyExperiment


class Counting(LinearActorCritic):
    """Counts rows, and adds up what they hold."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in ("rows", "observed", "returned"):
            self.register_buffer(name, torch.zeros(()))

    def update_statistics(self, observations, returns, sum_over_workers):
        assert observations["toy"].shape[:2] == returns.shape[:2]
        self.rows += returns.numel()
        self.observed += sum_over_workers(observations["toy"].sum())
        self.returned += sum_over_workers(returns.sum())


class Silent(RolloutStorage, MiniBatchStorageMixin):
    """A storage of one's own, made of another one; says nothing about statistics."""

    def __init__(self):
        self.inner = RolloutBlockStorage()

    def initialize(self, **kwargs):
        self.inner.initialize(**kwargs)

    def add(self, *args, **kwargs):
        self.inner.add(*args, **kwargs)

    def before_updates(self, **kwargs):
        self.inner.before_updates(**kwargs)

    def after_updates(self, **kwargs):
        self.inner.after_updates(**kwargs)

    def to(self, device):
        self.inner.to(device)

    def set_partition(self, index, num_parts):
        self.inner.set_partition(index, num_parts)

    @property
    def total_experiences(self):
        return self.inner.total_experiences

    def agent_input_for_next_step(self):
        return self.inner.agent_input_for_next_step()

    def sampler_select(self, keep_list):
        self.inner.sampler_select(keep_list)

    def batched_experience_generator(self, num_mini_batch):
        return self.inner.batched_experience_generator(num_mini_batch)


class Telling(Silent):
    def observations_and_returns(self):
        return self.inner.observations_and_returns()


class Statistics(ToyExperiment):
    def __init__(self, storage, model=Counting):
        super().__init__(named_storages={"mine": Builder(storage)})
        self.model = model

    def create_model(self, **kwargs):
        return self.model("toy", self.action_space, SensorSuite(self.sensors).observation_spaces)


def test_every_storage_can_give_statistics_their_numbers(train):
    ours, own = (train(Statistics(storage)).parameters for storage in (RolloutBlockStorage, Telling))
    assert ours["rows"] == own["rows"] == 128
    assert ours["returned"] != 0
    assert all(torch.equal(value, own[name]) for name, value in ours.items())


def test_a_storage_that_gives_none_is_warned_of_once(train, caplog):
    with caplog.at_level("WARNING", logger="allenact"):
        assert train(Statistics(Silent)).parameters["rows"] == 0
    warnings = [record.message for record in caplog.records if "running statistics" in record.message]
    assert len(warnings) == 1
    assert "Counting keeps running statistics, but Silent does not say" in warnings[0]


@pytest.mark.parametrize("storage", [Silent, RolloutBlockStorage])
def test_models_without_statistics_are_none_of_its_business(storage, train, caplog):
    with caplog.at_level("WARNING", logger="allenact"):
        train(Statistics(storage, LinearActorCritic))
    assert "running statistics" not in caplog.text
