"""Classes as people have written them for AllenAct, which our own names and shortcuts must not get in the way of."""

import pytest
import torch
from gymnasium.spaces import Discrete
from torch import nn

from allenact.algorithms.onpolicy_sync.losses.ppo import PPO
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.base_abstractions.distributions import CategoricalDistr
from allenact.base_abstractions.misc import ActorCriticOutput, GenericAbstractLoss, LossOutput, Memory
from allenact.embodiedai.models.basic_models import LinearActorCritic
from allenact.errors import ExperimentConfigError
from allenact.testing.experiments import ToyExperiment
from allenact.testing.tasks import CopyTask, ToyTaskSampler
from allenact.utils.experiment_utils import Builder, PipelineStage, StageComponent, TrainingPipeline, TrainingSettings
from tests.runs.test_streaming_storage import NumberStream


class CountsInNewMemories(GenericAbstractLoss):
    """Answers with memories of its own, or with None, instead of changing those it was given."""

    answers_none = False

    def loss(self, *, model, batch, batch_memory, stream_memory):
        before = stream_memory.tensor("count") if "count" in stream_memory else torch.zeros(1)
        new = None if self.answers_none else Memory({"count": (before + 1, 0)})
        info = {"before": float(before), "others": float(len(batch_memory))}
        return LossOutput(
            value=batch["value"].mean(),
            info=info,
            per_epoch_info={},
            batch_memory=None if self.answers_none else Memory({"seen": (torch.zeros(1), 0)}),
            stream_memory=new,
            bsize=len(batch["value"]),
        )


class AnswersNone(CountsInNewMemories):
    answers_none = True


class Streamed(ToyExperiment):
    """Two losses on one stream of numbers."""

    def training_pipeline(self, **kwargs):
        component = StageComponent(
            uuid="numbers",
            storage_uuid="numbers",
            loss_names=["first", "second"],
            training_settings=TrainingSettings(num_mini_batch=1, update_repeats=1),
        )
        return TrainingPipeline(
            named_storages={"numbers": NumberStream([1.0, 2.0, 3.0], [4, 4, 4])},
            named_losses={"first": CountsInNewMemories(), "second": AnswersNone()},
            pipeline_stages=[
                PipelineStage(loss_names=["first", "second"], max_stage_steps=3, stage_components=[component])
            ],
            optimizer_builder=Builder(torch.optim.Adam, {"lr": 1e-3}),
            **{**self.settings, "metric_accumulate_interval": 1},
        )


@pytest.mark.filterwarnings("ignore:the pipeline has no rollout storage")
def test_the_memories_that_a_loss_returns_are_kept(train):
    run = train(Streamed(num_eval_samplers=0))
    scalars = [{name: total / rows for name, (total, rows) in package.scalars.items()} for package in run.packages]
    first, second = "train-numbers-losses/first/", "train-numbers-losses/second/"
    assert [each[first + "before"] for each in scalars] == [0, 1, 2]
    assert [each[second + "before"] for each in scalars] == [1, 2, 3], "it gets what the first one left"
    assert [each[first + "others"] for each in scalars] == [0, 0, 0]
    assert [each[second + "others"] for each in scalars] == [1, 1, 1]


class WholeRollouts(RolloutBlockStorage):
    """Hands out the whole rollout, as often as there are to be mini-batches."""

    def batched_experience_generator(self, num_mini_batch):
        for _ in range(num_mini_batch):
            yield from super().batched_experience_generator(num_mini_batch=1)


class OwnBatches(ToyExperiment):
    def training_pipeline(self, **kwargs):
        pipeline = super().training_pipeline(**kwargs)
        return TrainingPipeline(
            named_losses={"ppo_loss": pipeline.get_loss("ppo_loss")},
            named_storages={"onpolicy": WholeRollouts()},
            rollout_storage_uuid="onpolicy",
            pipeline_stages=[PipelineStage(loss_names=["ppo_loss"], max_stage_steps=64)],
            optimizer_builder=Builder(torch.optim.Adam, {"lr": 1e-3}),
            **self.settings,
        )


def test_a_storage_that_cuts_its_own_mini_batches_may_make_more_than_there_are_samplers(train):
    run = train(OwnBatches(num_mini_batch=7, num_samplers=2, num_eval_samplers=0))
    total, updates = run.packages[-1].scalars["train-onpolicy-misc/rollout_num_mini_batch"]
    assert total / updates == 7
    with pytest.raises(ExperimentConfigError, match="7 mini-batches cannot be cut from 2"):
        train(ToyExperiment(num_mini_batch=7, num_samplers=2, num_eval_samplers=0))


class WritesIntoItsBatch(PPO):
    """Scales the returns in place; remembers how large they were when it got them."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def loss(self, step_count, batch, *args, **kwargs):
        self.seen.append(float(batch["returns"].abs().sum()))
        answer = super().loss(step_count, batch, *args, **kwargs)
        batch["returns"] *= 10
        return answer


@pytest.mark.parametrize("num_mini_batch", [1, 2])
def test_a_loss_may_write_into_its_batch(train, num_mini_batch):
    loss = WritesIntoItsBatch(0.2, 0.5, 0.0)

    class Config(ToyExperiment):
        def training_pipeline(self, **kwargs):
            return TrainingPipeline(
                named_losses={"ppo_loss": loss},
                pipeline_stages=[PipelineStage(loss_names=["ppo_loss"], max_stage_steps=32)],
                optimizer_builder=Builder(torch.optim.Adam, {"lr": 1e-3}),
                **self.settings,
            )

    train(Config(num_mini_batch=num_mini_batch, update_repeats=3, num_eval_samplers=0))
    passes = [sum(loss.seen[i : i + num_mini_batch]) for i in range(0, len(loss.seen), num_mini_batch)][-3:]
    assert passes == pytest.approx([passes[0]] * 3)
    assert passes[0] > 0


class LateStorage(ToyExperiment):
    """A second storage takes the rollouts, too, from the second stage on."""

    def training_pipeline(self, **kwargs):
        first, second = (StageComponent(uuid=name, storage_uuid=name, loss_names=["ppo_loss"]) for name in "ab")
        again = StageComponent(uuid="a", storage_uuid="a", loss_names=["ppo_loss"])
        return TrainingPipeline(
            named_losses={"ppo_loss": super().training_pipeline().get_loss("ppo_loss")},
            named_storages={"a": RolloutBlockStorage(), "b": RolloutBlockStorage()},
            rollout_storage_uuid="a",
            pipeline_stages=[
                PipelineStage(loss_names=["ppo_loss"], max_stage_steps=64, stage_components=[first]),
                PipelineStage(loss_names=["ppo_loss"], max_stage_steps=64, stage_components=[again, second]),
            ],
            optimizer_builder=Builder(torch.optim.Adam, {"lr": 1e-3}),
            **self.settings,
        )


def test_a_storage_may_begin_to_take_rollouts_in_a_later_stage(train):
    run = train(LateStorage(num_eval_samplers=0))
    assert run.packages[-1].training_steps == 128
    assert "train-b-losses/ppo_loss/ppo_total" in run.packages[-1].scalars


class PlainModel(nn.Module):
    """What the engine needs of a model, without our base class."""

    recurrent_memory_specification = None
    action_space = Discrete(CopyTask.observation_size)

    def __init__(self):
        super().__init__()
        self.actor, self.critic = nn.Linear(self.action_space.n, self.action_space.n), nn.Linear(self.action_space.n, 1)

    def forward(self, observations, memory, prev_actions, masks):
        x = observations["toy"]
        return ActorCriticOutput(CategoricalDistr(logits=self.actor(x)), self.critic(x), {}), None


class OwnStatistics(LinearActorCritic):
    """Has a method that is called as one of ours, and is another."""

    def update_statistics(self, observations):
        raise AssertionError("nobody but the model itself calls it")


class FailsInForward(LinearActorCritic):
    def forward(self, *args, **kwargs):
        raise ValueError("my own mistake")


class OtherModel(ToyExperiment):
    def __init__(self, make_model, **kwargs):
        super().__init__(num_eval_samplers=0, **kwargs)
        self.make_model = make_model

    def create_model(self, **kwargs):
        own = super().create_model(**kwargs)
        if self.make_model is PlainModel:
            return PlainModel()
        return self.make_model("toy", own.action_space, own.observation_space)


@pytest.mark.parametrize("model", [PlainModel, OwnStatistics])
def test_models(train, model):
    assert len(train(OtherModel(model)).checkpoints) == 2


def test_an_error_of_the_model_itself_keeps_its_traceback(train):
    with pytest.raises(ValueError, match="my own mistake"):
        train(OtherModel(FailsInForward))


class FlaggedTask(CopyTask):
    """Says by a flag, not by a method, whether it was cut."""

    was_truncated = False


class LazySampler(ToyTaskSampler):
    """Can be seeded only once it has a task."""

    made = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.made = True

    def set_seed(self, seed):
        if self.made and self.last_sampled_task is None:
            raise AttributeError("there is no environment yet")
        super().set_seed(seed)


class LazyTasks(ToyExperiment):
    def make_sampler_fn(self, **kwargs):
        return LazySampler(FlaggedTask, **kwargs)

    def train_task_sampler_args(self, *args, **kwargs):
        own = super().train_task_sampler_args(*args, **kwargs)
        del own["seed"]
        return own


def test_tasks_and_samplers(train, caplog):
    run = train(LazyTasks(num_eval_samplers=0, bootstrap_truncated=True))
    assert run.packages[-1].metrics
    assert "LazySampler.set_seed failed before the first task" in caplog.text


def test_settings_of_upstream(train):
    run = train(ToyExperiment(metric_interval=0, use_gae=1, num_eval_samplers=0, stage_steps=(96,)))
    assert [package.training_steps for package in run.packages] == [32, 64, 96]
