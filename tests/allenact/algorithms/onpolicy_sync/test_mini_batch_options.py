"""The settings of a component reach the mini-batches that its losses see."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync.losses.abstract_loss import AbstractActorCriticLoss
from allenact.algorithms.onpolicy_sync.update import PolicyUpdater
from allenact.embodiedai.models.basic_models import LinearActorCritic
from allenact.pipeline.builder import Builder
from allenact.pipeline.pipeline import TrainingPipeline
from allenact.pipeline.settings import TrainingSettings
from allenact.pipeline.stage import PipelineStage, StageComponent

STEPS, SAMPLERS = 6, 4


class Spy(AbstractActorCriticLoss):
    """Remembers the leading dimensions of what it is given."""

    def __init__(self):
        self.seen = []

    def loss(self, step_count, batch, actor_critic_output, *args, **kwargs):
        self.seen.append((tuple(batch["masks"].shape[:2]), tuple(actor_critic_output.values.shape)))
        return actor_critic_output.values.mean(), {}


@pytest.mark.parametrize(
    ("over", "expected"),
    [("samplers", [((6, 2), (6, 2, 1))] * 4), ("steps", [((1, 12), (1, 12, 1))] * 4)],
)
def test_mini_batches_over(over, expected):
    spy = Spy()
    component = StageComponent(
        uuid="learn",
        storage_uuid="onpolicy",
        loss_names=["spy"],
        training_settings=TrainingSettings(mini_batches_over=over),
    )
    stage = PipelineStage(loss_names=["spy"], max_stage_steps=100, stage_components=[component])
    pipeline = TrainingPipeline(
        named_losses={"spy": spy},
        pipeline_stages=[stage],
        optimizer_builder=Builder(torch.optim.SGD, {"lr": 0.1}),
        num_mini_batch=2,
        update_repeats=2,
        max_grad_norm=1.0,
    )
    spaces = gym.spaces.Dict({"x": gym.spaces.Box(-1, 1, (3,), np.float32)})
    model = LinearActorCritic("x", gym.spaces.Discrete(2), spaces)
    storage = pipeline.rollout_storage
    storage.initialize(
        observations={"x": torch.zeros(SAMPLERS, 3)}, num_samplers=SAMPLERS, action_space=model.action_space
    )
    column = torch.ones(SAMPLERS, 1)
    for _ in range(STEPS):
        storage.add({"x": torch.zeros(SAMPLERS, 3)}, None, column.long(), column[:, 0], column, column, column)
    storage.before_updates(next_value=column, use_gae=True, gamma=0.9, tau=0.9)
    optimizer = pipeline.optimizer_builder(params=list(model.parameters()))
    PolicyUpdater(model, pipeline, optimizer).update(stage, {"onpolicy": storage})
    assert spy.seen == expected
