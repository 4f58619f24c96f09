"""What a pipeline's stages and settings mean for a run."""

import pytest
import torch

from allenact.algorithms.onpolicy_sync.losses import A2C
from allenact.testing.experiments import ToyExperiment
from allenact.utils.experiment_utils import EarlyStoppingCriterion, PipelineStage, TrainingPipeline


def names(run):
    return [path.name.removeprefix("exp_Toy__") for path in run.checkpoints]


class StopAfter(EarlyStoppingCriterion):
    """Ends a stage after so many of its steps; keeps what it was asked."""

    def __init__(self, steps):
        self.steps, self.asked = steps, []

    def __call__(self, stage_steps, total_steps, training_metrics):
        self.asked.append((stage_steps, total_steps, training_metrics.means()))
        return stage_steps >= self.steps


class StoppedEarly(ToyExperiment):
    """Two stages of 128 steps, each with a criterion."""

    def __init__(self, first, second, **kwargs):
        super().__init__(stage_steps=(128, 128), **kwargs)
        self.criteria = first, second

    def training_pipeline(self, **kwargs):
        pipeline = super().training_pipeline()
        for stage, criterion in zip(pipeline.pipeline_stages, self.criteria, strict=True):
            stage.early_stopping_criterion = criterion
        return pipeline


def test_early_stopping_ends_one_stage_after_the_other(train):
    first, second = StopAfter(64), StopAfter(1000)
    run = train(StoppedEarly(first, second, save_interval=0))
    assert run.trainer.training_pipeline.total_steps == 64 + 128
    assert names(run) == ["stage_00__steps_000000000064.pt", "stage_01__steps_000000000192.pt"]
    assert [asked[:2] for asked in first.asked] == [(32, 32), (64, 64)]
    assert second.asked[0][:2] == (32, 96), "a stage counts its own steps"
    stages = [(package.training_steps, package.pipeline_stage) for package in run.packages]
    assert stages == [(32, 0), (64, 0), (96, 1), (128, 1), (160, 1), (192, 1)]


def test_early_stopping_sees_the_metrics_of_each_rollout(train):
    criterion = StopAfter(1000)
    run = train(StoppedEarly(criterion, StopAfter(0), metric_interval=32))
    logged = [package.metrics for package in run.packages]
    assert [stage_steps for stage_steps, _, _ in criterion.asked] == [32, 64, 96, 128]
    for (_, _, seen), episodes in zip(criterion.asked, logged[:4], strict=True):
        assert seen["reward"] == pytest.approx(sum(episode["reward"] for episode in episodes) / len(episodes))
        assert "task_info" not in seen


def test_early_stopping_is_remembered_by_a_checkpoint(train):
    config = StoppedEarly(StopAfter(32), StopAfter(1000))
    whole = train(config)
    after = next(path for path in whole.checkpoints if "stage_00" in path.name)
    rest = train(StoppedEarly(StopAfter(1000), StopAfter(1000)), checkpoint=after)
    assert [package.pipeline_stage for package in rest.packages] == [1] * 4
    assert rest.trainer.training_pipeline.total_steps == whole.trainer.training_pipeline.total_steps == 160


@pytest.mark.parametrize(
    ("save_interval", "expected"),
    [
        (None, []),
        (0, ["stage_00__steps_000000000064.pt", "stage_01__steps_000000000128.pt"]),
        (-1, ["stage_00__steps_000000000064.pt", "stage_01__steps_000000000128.pt"]),
        (
            48,
            [
                "stage_00__steps_000000000064.pt",
                "stage_01__steps_000000000128.pt",
            ],
        ),
        (32, [f"stage_{i // 2:02d}__steps_{32 * (i + 1):012d}.pt" for i in range(4)]),
        (10**6, ["stage_00__steps_000000000064.pt", "stage_01__steps_000000000128.pt"]),
    ],
)
def test_save_interval(save_interval, expected, train):
    assert names(train(ToyExperiment(stage_steps=(64, 64), save_interval=save_interval))) == expected


class TwoLosses(ToyExperiment):
    """PPO first, then A2C with half its weight and other settings."""

    def training_pipeline(self, **kwargs):
        plain = super().training_pipeline()
        return TrainingPipeline(
            named_losses={"ppo_loss": plain.get_loss("ppo_loss"), "a2c_loss": A2C(0.5, 0.0)},
            pipeline_stages=[
                PipelineStage(loss_names=["ppo_loss"], max_stage_steps=64),
                PipelineStage(
                    loss_names=["a2c_loss", "ppo_loss"],
                    loss_weights=[0.5, 2.0],
                    max_stage_steps=96,
                    num_steps=12,
                    update_repeats=1,
                    num_mini_batch=1,
                    metric_accumulate_interval=1,
                ),
            ],
            optimizer_builder=plain.optimizer_builder,
            **self.settings,
        )


def test_every_stage_has_losses_and_settings_of_its_own(train):
    run = train(TwoLosses())
    assert [package.training_steps for package in run.packages] == [32, 64, 112, 160]
    for package in run.packages:
        means = {tag.removeprefix("train-onpolicy-"): s / n for tag, (s, n) in package.scalars.items()}
        if package.pipeline_stage == 0:
            assert "losses/a2c_loss/a2c_total" not in means
            assert means["losses/total_loss"] == pytest.approx(means["losses/ppo_loss/ppo_total"])
            assert means["misc/rollout_epochs"] == means["misc/rollout_num_mini_batch"] == 2
            assert means["misc/global_batch_size"] == 16
        else:
            total = 0.5 * means["losses/a2c_loss/a2c_total"] + 2 * means["losses/ppo_loss/ppo_total"]
            assert means["losses/total_loss"] == pytest.approx(total)
            assert means["misc/rollout_epochs"] == means["misc/rollout_num_mini_batch"] == 1
            assert means["misc/global_batch_size"] == 48


@pytest.mark.parametrize("settings", [{"num_mini_batch": 0}, {"update_repeats": 0}])
def test_nothing_is_learned_without_batches_or_passes(settings, train):
    run = train(ToyExperiment(**settings))
    untouched = train(ToyExperiment(stage_steps=(0,)))
    assert run.trainer.training_pipeline.total_steps == 128
    assert all(torch.equal(run.parameters[key], value) for key, value in untouched.parameters.items())
    assert not any("losses" in tag for package in run.packages for tag in package.scalars)
    assert sum(len(package.metrics) for package in run.packages) > 0, "but it plays"


def test_the_initial_weights_are_saved_if_asked_for(train):
    run = train(ToyExperiment(save_interval=64), valid_on_initial_weights=True)
    assert names(run) == [f"stage_00__steps_{steps:012d}.pt" for steps in (0, 64, 128)]


def test_a_callback_can_change_the_engine_when_a_stage_begins(train):
    class Changing(ToyExperiment):
        def training_pipeline(self, **kwargs):
            pipeline = super().training_pipeline()
            pipeline.pipeline_stages[1].callback_to_change_engine_attributes = {
                "save_after_stages": {"func": lambda engine, value: value, "args": {"value": False}}
            }
            return pipeline

    saved = names(train(Changing(stage_steps=(64, 64, 64), save_interval=0)))
    assert saved == ["stage_00__steps_000000000064.pt", "stage_02__steps_000000000192.pt"], "the end is always saved"
