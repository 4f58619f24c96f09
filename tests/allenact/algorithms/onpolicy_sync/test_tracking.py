"""What a worker gathers between two logs."""

import pickle

import pytest

from allenact.algorithms.onpolicy_sync.tracking import Tracker, mean_metrics, metric_means
from allenact.algorithms.onpolicy_sync.update import ComponentUpdate
from allenact.base_abstractions.task_batch import FinishedEpisode
from allenact.errors import TaskError


def episode(callback_data=None, **metrics):
    return FinishedEpisode(sampler=0, metrics=metrics, callback_data=callback_data)


def means(package):
    return {tag: total / count for tag, (total, count) in package.scalars.items()}


def test_scalars_are_weighted_means():
    tracker = Tracker("train")
    tracker.add_scalar("train-misc/x", 1.0, weight=1)
    tracker.add_scalar("train-misc/x", 4.0, weight=3)
    tracker.add_scalar("train-misc/y", 2.0)
    assert means(tracker.pop(0, {})) == {"train-misc/x": (1 + 12) / 4, "train-misc/y": 2}


def test_updates_are_filed_under_their_component():
    update = ComponentUpdate(
        "onpolicy",
        "rollouts",
        losses=[({"ppo_loss/value": 1.0, "total_loss": 2.0}, 10), ({"ppo_loss/value": 4.0, "total_loss": 2.0}, 30)],
        info=[({"worker_batch_size": 10}, 1), ({"worker_batch_size": 30}, 1), ({"lr": 0.5}, 40)],
    )
    tracker = Tracker("train")
    tracker.add_updates([update, ComponentUpdate("off", "demos", losses=[({"total_loss": 7.0}, 1)])])
    package = tracker.pop(0, {})
    assert means(package) == {
        "train-onpolicy-losses/ppo_loss/value": (10 + 120) / 40,
        "train-onpolicy-losses/total_loss": 2,
        "train-onpolicy-misc/worker_batch_size": 20,  # of mini-batches, whatever their size
        "train-onpolicy-misc/lr": 0.5,
        "train-off-losses/total_loss": 7,
    }
    assert package.scalar_storage["train-onpolicy-losses/total_loss"] == "rollouts"
    assert package.scalar_storage["train-off-losses/total_loss"] == "demos"


def test_a_package_holds_what_came_since_the_last_one():
    tracker = Tracker("valid")
    tracker.add_scalar("valid-misc/x", 1.0)
    tracker.add_episodes([episode(reward=1.0, callback_data={"seen": 1})])
    first = tracker.pop(64, {"onpolicy": 60}, checkpoint_file_name="a.pt")
    tracker.add_episodes([episode(reward=3.0)])
    second = tracker.pop(128, {"onpolicy": 120})
    assert (first.mode, first.training_steps, first.storage_experiences) == ("valid", 64, {"onpolicy": 60})
    assert first.checkpoint_file_name == "a.pt"
    assert first.metrics == [{"reward": 1.0}]
    assert first.tasks_data == [{"seen": 1}]
    assert second.scalars == {}
    assert second.metrics == [{"reward": 3.0}]
    assert second.tasks_data == []
    assert pickle.loads(pickle.dumps(first)) == first, "it travels over a pipe"


@pytest.mark.parametrize(
    "metrics", [{}, {"task_info": {"id": "a"}}, {"reward": 1.0, "success": None}, {"success": None}]
)
def test_episodes_without_usable_metrics_are_only_counted(metrics):
    tracker = Tracker("train")
    tracker.add_episodes([episode(**metrics), episode(reward=2.0, success=False)])
    package = tracker.pop(0, {})
    assert package.metrics == [{"reward": 2.0, "success": False}]
    assert package.dropped_metrics == 1
    assert tracker.pop(0, {}).dropped_metrics == 0


def test_means_are_taken_key_by_key():
    metrics = [{"reward": 1.0, "task_info": {"id": "a"}}, {"reward": 3, "success": True}, {"success": False, "a/b": 7}]
    assert mean_metrics(metrics) == {"reward": 2, "success": 0.5, "a/b": 7}
    assert mean_metrics([]) == {}


def test_a_metric_that_is_no_number_is_named():
    with pytest.raises(TaskError, match='"path"'):
        mean_metrics([{"reward": 1.0, "path": [1, 2]}])


def test_what_was_gathered_survives_a_checkpoint():
    def gather(tracker, value):
        tracker.add_scalar("train-misc/x", value, 2, "onpolicy")
        tracker.add_episodes([episode(reward=value, callback_data={"seen": value}), episode(success=None)])

    whole, before = Tracker("train"), Tracker("train")
    gather(whole, 1.0)
    gather(before, 1.0)
    state = before.state_dict()
    gather(before, 5.0)  # what happens later is not in the state
    after = Tracker("train")
    after.add_scalar("train-misc/x", 100.0)
    after.load_state_dict(state)
    for tracker in (whole, after):
        gather(tracker, 2.0)
    assert after.metric_means() == {"reward": 1.5}
    assert after.pop(1, {}) == whole.pop(1, {})


def test_early_stopping_sees_what_counts():
    episodes = [episode(success=1, reward=2.0, task_info={"id": "a"}), episode(success=None, reward=9.0), episode()]
    assert metric_means(episodes).means() == {"success": 1.0, "reward": 2.0}
    with pytest.raises(TaskError, match='metric "place" of a task is no number'):
        metric_means([episode(success=1, place="kitchen")])
