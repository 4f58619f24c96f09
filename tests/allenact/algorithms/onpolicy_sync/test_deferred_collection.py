"""Acting on observations alone gives the same rollouts as a full forward pass at every step."""

import pytest
import torch

from allenact.algorithms.onpolicy_sync import deferred_collection
from allenact.algorithms.onpolicy_sync.collection import RolloutCollector
from allenact.algorithms.onpolicy_sync.deferred_collection import deferred_policy
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import make_vector_tasks
from allenact.base_abstractions.sensor import SensorSuite
from allenact.testing.tasks import PushRightTask, ToySensor, ToyTaskSampler
from allenact_plugins.gym_plugin.gym_models import MemorylessActorCritic
from allenact_plugins.gym_plugin.normalized_actor_critic import NormalizedActorCritic

SENSORS = [ToySensor(PushRightTask.observation_size)]


def in_full_at_every_step(model_class):
    """A subclass with a forward of its own, which the inherited `make_rollout_policy` may not match."""

    class InFull(model_class):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    return InFull


def collect(model_class, bootstrap_truncated, samplers=3, steps=17):
    torch.manual_seed(3)
    model = model_class("toy", PushRightTask.lower_action_space, SensorSuite(SENSORS).observation_spaces)
    args = [{"task_class": PushRightTask, "seed": seed, "max_steps": 5} for seed in range(samplers)]
    with make_vector_tasks(
        ToyTaskSampler, args, action_space=PushRightTask.lower_action_space, backend="serial"
    ) as tasks:
        storage = RolloutBlockStorage()
        storage.reserve(steps)
        collector = RolloutCollector(model, tasks, torch.device("cpu"))
        collector.initialize([storage])
        rollouts, calls, calls_of_model = [], [], []
        model.register_forward_hook(lambda *_: calls_of_model.append(1))
        for _ in range(2):
            calls_of_model.clear()
            taken = collector.collect(storage, [storage], steps, bootstrap_truncated=bootstrap_truncated)
            assert taken == steps * samplers
            calls.append(len(calls_of_model))
            storage.before_updates(next_value=collector.next_value(storage), use_gae=True, gamma=0.9, tau=0.95)
            names = ("rewards", "masks", "actions", "prev_actions", "action_log_probs", "value_preds", "returns")
            rollout = {name: getattr(storage, name).clone() for name in names}
            rollout["observations"] = storage.observations.tensor("toy").clone()
            rollouts.append(rollout)
            storage.after_updates()
        return (
            rollouts,
            [(e.sampler, e.metrics) for e in collector.pop_episodes()],
            calls,
        )


@pytest.mark.parametrize("bootstrap_truncated", [False, True])
@pytest.mark.parametrize(
    ("model_class", "samplers", "steps"),  # noise step by step, and for many steps at once
    [(MemorylessActorCritic, 3, 17), (MemorylessActorCritic, 16, 70), (NormalizedActorCritic, 3, 17)],
)
def test_deferred_equals_full(model_class, samplers, steps, bootstrap_truncated):
    in_full = in_full_at_every_step(model_class)
    full, full_episodes, full_calls = collect(in_full, bootstrap_truncated, samplers, steps)
    deferred, deferred_episodes, calls = collect(model_class, bootstrap_truncated, samplers, steps)
    assert min(full_calls) >= steps
    assert calls == [1 + bootstrap_truncated] * 2, "once for the rollout, once for the episodes that a limit ended"
    assert full_episodes
    for (sampler, metrics), (other_sampler, other_metrics) in zip(full_episodes, deferred_episodes, strict=True):
        assert sampler == other_sampler
        assert metrics["ep_length"] == other_metrics["ep_length"]
        assert metrics["reward"] == pytest.approx(other_metrics["reward"], rel=1e-5, abs=1e-6)
    for a, b in zip(full, deferred, strict=True):
        assert torch.equal(a["masks"], b["masks"])
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6, msg=name)


def test_long_rollouts_are_predicted_in_blocks(monkeypatch):
    whole, *_ = collect(MemorylessActorCritic, True, 3, 17)
    monkeypatch.setattr(deferred_collection, "PREDICTION_BATCH", 12)  # environment steps: 4 of each sampler
    blocks, _, calls = collect(MemorylessActorCritic, True, 3, 17)
    assert calls == [5 + 1] * 2
    for a, b in zip(whole, blocks, strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6, msg=name)


def test_an_actor_of_another_kind_is_run_in_full():
    model = MemorylessActorCritic("toy", PushRightTask.lower_action_space, SensorSuite(SENSORS).observation_spaces)
    model.actor[1] = torch.nn.ReLU()
    assert deferred_policy(model, [RolloutBlockStorage()], 5) is None


def test_truncation_values_change_the_returns():
    without, *_ = collect(MemorylessActorCritic, False)
    with_values, *_ = collect(MemorylessActorCritic, True)
    assert not torch.equal(without[0]["returns"], with_values[0]["returns"])


def test_several_storages_are_filled_in_full():
    model = MemorylessActorCritic("toy", PushRightTask.lower_action_space, SensorSuite(SENSORS).observation_spaces)
    assert deferred_policy(model, [RolloutBlockStorage(), RolloutBlockStorage()], 5) is None

    class Watching(RolloutBlockStorage):
        """Would not see the predictions of each step."""

    assert deferred_policy(model, [Watching()], 5) is None
