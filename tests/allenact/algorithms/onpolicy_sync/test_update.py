"""The optimiser's kernels, and the numbers that an update reports."""

import pytest
import torch

from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer
from allenact.algorithms.onpolicy_sync.update import ComponentUpdate
from allenact.pipeline.builder import Builder
from allenact.testing.experiments import ToyExperiment


class Optimised(ToyExperiment):
    """The toy with an optimiser of our choice."""

    def __init__(self, optimizer_class, **kwargs):
        self.builder = Builder(optimizer_class, {"lr": 1e-2, **kwargs})
        super().__init__(stage_steps=(64,))

    def training_pipeline(self, **kwargs):
        pipeline = super().training_pipeline()
        pipeline.optimizer_builder = self.builder
        return pipeline


@pytest.mark.parametrize(
    ("optimizer_class", "chosen", "fused"),
    [
        (torch.optim.Adam, {}, True),
        (torch.optim.AdamW, {}, True),
        (torch.optim.Adam, {"fused": False}, False),
        (torch.optim.Adam, {"fused": True}, True),
        (torch.optim.Adam, {"foreach": True}, None),
        (torch.optim.Adam, {"foreach": False}, True),
        (torch.optim.Adam, {"differentiable": True}, None),
        (torch.optim.SGD, {}, None),
    ],
)
def test_adam_is_fused_unless_the_experiment_has_chosen(optimizer_class, chosen, fused):
    with OnPolicyTrainer(Optimised(optimizer_class, **chosen), seed=1) as trainer:
        (group,) = trainer.optimizer.param_groups
        assert group["fused"] is fused


def scalars(*values):
    return {f"value{index}": value for index, value in enumerate(values)}


def test_all_tensors_are_read_at_once(monkeypatch):
    reads = []
    for name in ("tolist", "item", "__float__"):
        read = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda tensor, read=read: reads.append(tuple(tensor.shape)) or read(tensor)
        )
    weight = torch.tensor(3.0, requires_grad=True)
    update = ComponentUpdate(
        "ppo",
        "rollouts",
        losses=[(scalars(torch.tensor(1.0), 2, weight * 1.0), 10), (scalars(torch.tensor([4.0]), 0.5), 30)],
        info=[(scalars(5, torch.tensor(6.0, dtype=torch.float64)), 1), (scalars(), 1), (scalars(torch.tensor(7)), 2)],
    )
    plain = update.read()
    assert reads == [(5,)]
    assert plain == ComponentUpdate(
        "ppo",
        "rollouts",
        losses=[(scalars(1.0, 2, 3.0), 10), (scalars(4.0, 0.5), 30)],
        info=[(scalars(5, 6.0), 1), (scalars(), 1), (scalars(7.0), 2)],
    )
    assert {type(value) for entry, _ in [*plain.losses, *plain.info] for value in entry.values()} == {int, float}
    assert plain.read() is plain, "nothing is left to read"


def test_an_update_reports_numbers():
    updates = []
    with OnPolicyTrainer(Optimised(torch.optim.Adam), seed=1, sampler_backend="serial") as trainer:
        update = trainer.updater.update
        trainer.updater.update = lambda *args: updates.extend(update(*args)) or updates[-1:]
        trainer.train()
    assert len(updates) == 2
    for entries in (updates[0].losses, updates[0].info):
        assert entries
        assert all(type(value) in (int, float) for values, _ in entries for value in values.values())
    assert {"lr", "total_grad_norm", "rollout_epochs"} <= {name for values, _ in updates[0].info for name in values}
