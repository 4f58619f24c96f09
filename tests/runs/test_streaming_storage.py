"""Losses on data that is not the rollout, in training and in evaluation; losses on the rollout in evaluation."""

from collections.abc import Sequence

import pytest
import torch

from allenact.algorithms.onpolicy_sync.losses.abstract_loss import AbstractActorCriticLoss
from allenact.algorithms.onpolicy_sync.runner import OnPolicyRunner
from allenact.algorithms.onpolicy_sync.storage import ExperienceStorage, RolloutBlockStorage, StreamingStorageMixin
from allenact.base_abstractions.misc import GenericAbstractLoss, LossOutput
from allenact.testing.experiments import ToyExperiment
from allenact.utils.experiment_utils import Builder, PipelineStage, StageComponent, TrainingPipeline, TrainingSettings


class NumberStream(ExperienceStorage, StreamingStorageMixin):
    """Hands out batch `i` as `sizes[i]` rows of `values[i]`, then has no more."""

    def __init__(self, values: Sequence[float], sizes: Sequence[int]) -> None:
        self.values, self.sizes, self.position, self.handed_out = values, sizes, 0, 0

    def initialize(self, *, observations, **kwargs):
        self.reset_stream()

    def add(self, *args, **kwargs):
        """Takes no rollouts."""

    def to(self, device):
        """Has no tensors yet."""

    def set_partition(self, index, num_parts):
        assert (index, num_parts) == (0, 1)

    @property
    def total_experiences(self):
        return self.handed_out

    def next_batch(self):
        if self.position >= len(self.values):
            raise EOFError
        value, size = self.values[self.position], self.sizes[self.position]
        self.position += 1
        self.handed_out += size
        return {"value": torch.full((size,), value)}

    def reset_stream(self):
        self.position = 0

    def empty(self):
        return not self.values


class MeanValue(GenericAbstractLoss):
    """The mean of a batch; counts in the stream memory how many batches came before it."""

    def loss(self, *, model, batch, batch_memory, stream_memory):
        mean = batch["value"].mean()
        before = stream_memory.tensor("count") if "count" in stream_memory else torch.zeros(1)
        info = {"avg_batch_val": mean, "batches_before": float(before)}
        if "count" in stream_memory:
            stream_memory.set_tensor("count", before + 1)
        else:
            stream_memory.check_append("count", before + 1, 0)
        return LossOutput(
            value=mean,
            info=info,
            per_epoch_info={},
            batch_memory=batch_memory,
            stream_memory=stream_memory,
            bsize=len(batch["value"]),
        )


class Three(AbstractActorCriticLoss):
    """A constant, as a Python float."""

    def loss(self, step_count, batch, actor_critic_output, *args, **kwargs):
        return 3.0, {"three": 3.0, "rows": torch.tensor(float(batch["returns"].numel()))}


class Streaming(ToyExperiment):
    """PPO on the rollout and MeanValue on a stream; evaluation computes Three (valid) and MeanValue (test)."""

    def __init__(self, values=(1.0, 2.0, 3.0), sizes=(1, 1, 1), **kwargs):
        super().__init__(**{"metric_interval": 32, **kwargs})
        self.values, self.sizes = values, sizes

    def training_pipeline(self, **kwargs):
        plain = super().training_pipeline()
        pipeline = TrainingPipeline(
            named_losses={"ppo_loss": plain.get_loss("ppo_loss"), "mean": MeanValue(), "three": Three()},
            named_storages={
                "onpolicy": Builder(RolloutBlockStorage),
                "numbers": Builder(NumberStream, {"values": self.values, "sizes": self.sizes}),
            },
            pipeline_stages=[
                PipelineStage(
                    loss_names=["ppo_loss", "mean"],
                    max_stage_steps=self.stage_steps[0],
                    stage_components=[
                        StageComponent(uuid="onpolicy", storage_uuid="onpolicy", loss_names=["ppo_loss"]),
                        StageComponent(
                            uuid="off",
                            storage_uuid="numbers",
                            loss_names=["mean"],
                            training_settings=TrainingSettings(num_mini_batch=1, update_repeats=1),
                        ),
                    ],
                )
            ],
            valid_pipeline_stage=PipelineStage(
                loss_names=["three"],
                max_stage_steps=-1,
                training_settings=TrainingSettings(num_mini_batch=8),  # more than there are samplers: for training
            ),
            test_pipeline_stage=PipelineStage(
                loss_names=["mean"],
                stage_components=[StageComponent(uuid="debug", storage_uuid="numbers", loss_names=["mean"])],
                max_stage_steps=-1,
                training_settings=TrainingSettings(num_mini_batch=1),
            ),
            optimizer_builder=plain.optimizer_builder,
            **self.settings,
        )
        pipeline.training_settings.save_interval = 96  # changed after construction, as experiments do
        return pipeline


def means(package):
    return {tag: total / count for tag, (total, count) in package.scalars.items()}


def test_a_stream_starts_anew_when_it_ends(train):
    run = train(Streaming())
    logs = [means(package) for package in run.packages]
    assert [log["train-off-losses/mean/avg_batch_val"] for log in logs] == [1, 2, 3, 1]
    assert [log["train-off-losses/mean/batches_before"] for log in logs] == [0, 1, 2, 0], "memory starts anew too"
    assert all("train-onpolicy-losses/ppo_loss/value" in log for log in logs)
    assert [package.storage_experiences["numbers"] for package in run.packages] == [1, 2, 3, 4]
    assert {package.scalar_storage["train-off-losses/mean/avg_batch_val"] for package in run.packages} == {"numbers"}


def test_a_setting_changed_after_construction_counts(train):
    assert [path.name[-15:] for path in train(Streaming()).checkpoints] == ["000000000096.pt", "000000000128.pt"]


def test_an_empty_stream_is_said_and_left_out(train, caplog):
    with caplog.at_level("WARNING", logger="allenact"):
        run = train(Streaming(values=(), sizes=()))
    assert run.trainer.training_pipeline.total_steps == 128
    assert not any("train-off-losses" in tag for package in run.packages for tag in package.scalars)
    assert '"numbers" is empty' in caplog.text


@pytest.mark.filterwarnings("ignore:the pipeline has no rollout storage")
def test_stages_with_a_stream_train_on_without_environments(train):
    """Without a rollout storage a step of the stage is one iteration of updates."""

    class Offline(Streaming):
        def training_pipeline(self, **kwargs):
            return TrainingPipeline(
                named_losses={"mean": MeanValue()},
                named_storages={"numbers": NumberStream([1.0, 2.0, 3.0], [2, 2, 2])},
                pipeline_stages=[
                    PipelineStage(
                        loss_names=["mean"],
                        max_stage_steps=4,
                        stage_components=[StageComponent(uuid="off", storage_uuid="numbers", loss_names=["mean"])],
                    )
                ],
                optimizer_builder=super().training_pipeline().optimizer_builder,
                num_mini_batch=1,
                update_repeats=1,
                metric_accumulate_interval=1,
                save_interval=0,
            )

    run = train(Offline())
    assert [package.training_steps for package in run.packages] == [1, 2, 3, 4]
    values = [means(package)["train-off-losses/mean/avg_batch_val"] for package in run.packages]
    assert values == [1, 2, 3, 1]
    assert run.packages[-1].storage_experiences == {"numbers": 8}
    assert [path.name for path in run.checkpoints] == ["exp_Toy__stage_00__steps_000000000004.pt"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Validation results of a run, and the results of testing its checkpoints."""
    folder = tmp_path_factory.mktemp("streaming")
    config = Streaming(values=(1.0, 2.0, 3.0, 4.0), sizes=(1, 2, 3, 4))
    common = {
        "output_dir": folder,
        "loaded_config_src_files": None,
        "seed": 1,
        "sampler_backend": "serial",
        "disable_tensorboard": True,
        "multiprocessing_start_method": "fork",
    }
    with OnPolicyRunner(config, **common) as runner:
        _, valid = runner.start_train(collect_valid_results=True)
    with OnPolicyRunner(config, mode="test", **common) as runner:
        test = runner.start_test(str(folder / "**" / "*.pt"))
    return valid, test


def test_losses_on_the_rollout_of_a_validation(results):
    last = results[0][-1]
    assert last["training_steps"] == 128
    assert len(last["tasks"]) == 6
    assert last["valid-onpolicy-losses/three/three"] == 3
    assert last["valid-onpolicy-losses/total_loss"] == 3
    assert last["valid-onpolicy-misc/worker_batch_size"] == last["valid-onpolicy-losses/three/rows"]
    assert last["valid-onpolicy-misc/rollout_epochs"] == 1
    assert last["valid-onpolicy-misc/rollout_num_mini_batch"] == 1


def test_losses_on_a_stream_in_a_test(results):
    assert [result["training_steps"] for result in results[1]] == [96, 128]
    for result in results[1]:
        assert len(result["tasks"]) == 6
        weighted = (1 * 1 + 2 * 2 + 3 * 3 + 4 * 4) / 10
        assert result["test-debug-losses/mean/avg_batch_val"] == pytest.approx(weighted)
        assert result["test-debug-losses/total_loss"] == pytest.approx(weighted)
        assert result["test-debug-misc/worker_batch_size"] == pytest.approx(2.5), "not weighted"
