"""The contract of batched tasks is complete."""

import pytest

from allenact.base_abstractions.task_batch import FinishedEpisode, TaskBatch


def test_an_incomplete_batch_cannot_be_made():
    with pytest.raises(TypeError, match="close, load_state_dict, next_tasks, observe, reset, state_dict, step, task"):
        TaskBatch()


def test_records_have_no_other_attributes():
    episode = FinishedEpisode(sampler=1, metrics={}, callback_data=None)
    with pytest.raises(AttributeError):
        episode.reward = 1.0
