"""TrainingPipeline and its stages: who trains what, for how long, and what is remembered."""

import copy
import pickle

import pytest
import torch

from allenact.algorithms.onpolicy_sync.losses import A2C, PPO
from allenact.algorithms.onpolicy_sync.losses.ppo import PPOConfig
from allenact.algorithms.onpolicy_sync.storage import (
    ExperienceStorage,
    RolloutBlockStorage,
    StreamingStorageMixin,
)
from allenact.errors import CheckpointError, ExperimentConfigError
from allenact.pipeline.builder import Builder
from allenact.pipeline.pipeline import TrainingPipeline
from allenact.pipeline.schedules import LinearDecay
from allenact.pipeline.settings import TrainingSettings
from allenact.pipeline.stage import EarlyStoppingCriterion, PipelineStage, StageComponent
from allenact.utils.metrics import ScalarMeanTracker

SETTINGS = dict(
    num_mini_batch=2,
    update_repeats=3,
    max_grad_norm=0.5,
    num_steps=8,
    gamma=0.99,
    use_gae=True,
    gae_lambda=0.95,
    metric_accumulate_interval=100,
)


class Demonstrations(ExperienceStorage, StreamingStorageMixin):
    built = 0

    def __init__(self):
        type(self).built += 1

    def initialize(self, *, observations, **kwargs):
        pass

    def add(self, *args, **kwargs):
        pass

    def to(self, device):
        pass

    def set_partition(self, index, num_parts):
        pass

    total_experiences = 0

    def next_batch(self):
        raise EOFError

    def reset_stream(self):
        pass

    def empty(self):
        return True


def stage(steps=100, **kwargs):
    return PipelineStage(**{"loss_names": ["ppo"], "max_stage_steps": steps, **kwargs})


def pipeline(*stages, **kwargs):
    arguments = dict(
        named_losses={"ppo": Builder(PPO, default=PPOConfig), "a2c": A2C(0.5, 0.01)},
        pipeline_stages=list(stages) or [stage()],
        optimizer_builder=Builder(torch.optim.Adam, dict(lr=1e-3)),
        **SETTINGS,
    )
    return TrainingPipeline(**{**arguments, **kwargs})


# Stages


def test_a_stage_gets_a_component_for_all_of_its_losses():
    training = pipeline(stage(loss_names=["ppo", "a2c"], loss_weights=[1.0, 0.5]))
    (component,) = training.current_stage.stage_components
    assert (component.uuid, component.storage_uuid, component.loss_names) == ("onpolicy", "onpolicy", ["ppo", "a2c"])
    assert training.current_stage.uuid_to_loss_weight == {"ppo": 1.0, "a2c": 0.5}
    assert training.valid_pipeline_stage.stage_components[0].loss_names == []
    assert training.current_stage.stage_component_uuid_to_stream_memory == {"onpolicy": {}}


def test_precedence_component_then_stage_then_pipeline():
    component = StageComponent(
        uuid="c",
        storage_uuid="onpolicy",
        loss_names=["ppo"],
        training_settings=TrainingSettings(update_repeats=[7]),
    )
    training = pipeline(
        stage(stage_components=[component], update_repeats=5, num_steps=4), stage(num_mini_batch=1), save_interval=10
    )
    first, second = training.pipeline_stages
    settings = component.training_settings
    assert (settings.update_repeats, settings.num_steps, settings.num_mini_batch) == ((7,), 4, 2)
    assert (first.training_settings.update_repeats, second.training_settings.update_repeats) == (5, 3)
    assert second.training_settings.num_mini_batch == 1
    assert second.stage_components[0].training_settings.num_mini_batch == 1
    training.training_settings.save_interval = 999
    assert settings.save_interval == second.training_settings.save_interval == 999


def test_settings_are_given_once():
    with pytest.raises(ExperimentConfigError, match="PipelineStage was given training settings twice"):
        stage(training_settings=TrainingSettings(), num_steps=4)
    with pytest.raises(ExperimentConfigError, match="TrainingPipeline was given training settings twice"):
        pipeline(training_settings=TrainingSettings())


def test_misspelt_keywords_are_refused_with_the_nearest_one():
    with pytest.raises(ExperimentConfigError, match='did you mean "num_steps"'):
        stage(num_step=4)
    with pytest.raises(ExperimentConfigError, match='did you mean "loss_weights"'):
        stage(loss_weight=[1.0])
    with pytest.raises(ExperimentConfigError, match='did you mean "lr_scheduler_builder"'):
        pipeline(lr_schedule_builder=None)


def test_a_setting_is_not_an_attribute_of_the_stage():
    with pytest.raises(ExperimentConfigError, match=r"write stage.training_settings.num_steps = 3"):
        stage().num_steps = 3


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"loss_weights": [1.0, 2.0]}, "one weight for each loss"),
        ({"loss_names": ["ppo", "ppo"]}, "each loss once"),
        ({"update_repeats": [1]}, "only be given in a StageComponent"),
    ],
)
def test_stages_that_make_no_sense(kwargs, message):
    with pytest.raises(ExperimentConfigError, match=message):
        stage(**kwargs)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (dict(uuid="a", storage_uuid="y", loss_names=[]), "have the same name"),
        (dict(uuid="b", storage_uuid="x", loss_names=[]), "use the same storage"),
        (dict(uuid="b", storage_uuid="y", loss_names=["pppo"]), 'did you mean "ppo"'),
    ],
)
def test_components_that_clash(second, message):
    first = StageComponent(uuid="a", storage_uuid="x", loss_names=["ppo"])
    with pytest.raises(ExperimentConfigError, match=message):
        stage(stage_components=[first, StageComponent(**second)])


def test_a_component_overrides_only_what_belongs_to_it():
    with pytest.raises(ExperimentConfigError, match="settings of its own for num_steps, gamma"):
        StageComponent(
            uuid="c",
            storage_uuid="onpolicy",
            loss_names=[],
            training_settings=TrainingSettings(num_steps=4, gamma=0.9, update_repeats=1),
        )


def test_the_length_of_a_stage_may_be_a_function():
    limit = 100
    short = stage(steps=lambda: limit)
    short.steps_taken_in_stage = 50
    assert not short.is_complete
    limit = 50
    assert short.is_complete


def test_a_stage_changes_the_engine():
    class Engine:
        speed = 1

    engine = Engine()
    change = {"speed": {"func": lambda engine, factor: engine.speed * factor, "args": {"factor": 3}}}
    stage(callback_to_change_engine_attributes=change).change_engine_attributes(engine)
    assert engine.speed == 3
    with pytest.raises(ExperimentConfigError, match='the engine lacks: "sped"'):
        stage(callback_to_change_engine_attributes={"sped": {}}).change_engine_attributes(engine)


# Progress


def test_stages_follow_each_other():
    training = pipeline(stage(0), stage(100), stage(0), stage(50))
    assert training.current_stage_index == 1  # the first is complete from the start
    training.current_stage.steps_taken_in_stage += 64
    assert not training.before_rollout()
    training.current_stage.steps_taken_in_stage += 64
    assert training.before_rollout()
    assert training.current_stage_index == 3
    training.current_stage.steps_taken_in_stage += 64
    assert training.total_steps == 192
    assert training.before_rollout()
    assert training.current_stage is None
    assert training.current_stage_losses == {}
    assert training.current_stage_storage == {}
    assert not training.before_rollout()
    training.restart_pipeline()
    assert (training.current_stage_index, training.total_steps) == (1, 0)


class StopWhenGood(EarlyStoppingCriterion):
    def __init__(self):
        self.calls = []

    def __call__(self, stage_steps, total_steps, training_metrics):
        self.calls.append((stage_steps, total_steps))
        return training_metrics.means()["success"] > 0.9


def test_early_stopping_is_asked_once_per_log_window():
    criterion = StopWhenGood()
    training = pipeline(stage(10), stage(1000, early_stopping_criterion=criterion), stage(10))
    training.current_stage.steps_taken_in_stage = 10
    assert training.before_rollout()
    training.current_stage.steps_taken_in_stage = 32
    metrics = ScalarMeanTracker()
    metrics.add_scalars({"success": 0.5})
    assert not training.before_rollout()  # no log since the last call
    assert not training.before_rollout(train_metrics=metrics)
    metrics.reset()
    metrics.add_scalars({"success": 1.0})
    assert training.before_rollout(train_metrics=metrics)
    assert criterion.calls == [(32, 42), (32, 42)]
    assert training.current_stage_index == 2
    assert training.pipeline_stages[1].early_stopping_criterion_met


def test_state_dict_round_trip():
    training = pipeline(stage(100), stage(100), stage(100))
    first, second, _ = training.pipeline_stages
    first.steps_taken_in_stage, first.storage_uuid_to_steps_taken_in_stage["onpolicy"] = 40, 40
    first.early_stopping_criterion_met = True
    second.steps_taken_in_stage, second.rollout_count = 60, 3
    training.rollout_count = 5
    state = training.state_dict()
    assert state == {
        "stage_info_list": [
            {
                "early_stopping_criterion_met": True,
                "steps_taken_in_stage": 40,
                "storage_uuid_to_steps_taken_in_stage": {"onpolicy": 40},
                "rollout_count": 0,
            },
            {
                "early_stopping_criterion_met": False,
                "steps_taken_in_stage": 60,
                "storage_uuid_to_steps_taken_in_stage": {},
                "rollout_count": 3,
            },
            {
                "early_stopping_criterion_met": False,
                "steps_taken_in_stage": 0,
                "storage_uuid_to_steps_taken_in_stage": {},
                "rollout_count": 0,
            },
        ],
        "rollout_count": 5,
    }
    restored = pipeline(stage(100), stage(100), stage(100))
    restored.load_state_dict(copy.deepcopy(state))
    assert restored.state_dict() == state
    assert (restored.current_stage_index, restored.total_steps) == (1, 100)


def test_old_states_load():
    training = pipeline(stage(100))
    info = {"early_stopping_criterion_met": False, "steps_taken_in_stage": 60}
    with pytest.warns(UserWarning, match="off_policy_epochs"):
        training.load_state_dict({"stage_info_list": [info], "rollout_count": 2, "off_policy_epochs": 1})
    assert (training.total_steps, training.rollout_count) == (60, 2)


def test_a_state_with_other_stages_is_refused():
    with pytest.raises(CheckpointError, match="another number of stages"):
        pipeline(stage(), stage()).load_state_dict(pipeline(stage()).state_dict())


def test_experience_is_counted_over_all_stages():
    training = pipeline(
        stage(),
        stage(),
        named_storages={
            "onpolicy": Builder(RolloutBlockStorage),
            "demos": Builder(Demonstrations),
            "demos__valid": Builder(Demonstrations),
            "other__test": Builder(Demonstrations),
        },
    )
    for one, count in zip(training.pipeline_stages, (10, 20), strict=True):
        one.steps_taken_in_stage = count
        one.storage_uuid_to_steps_taken_in_stage.update({"onpolicy": count, "demos": 2 * count})
    assert training.storage_uuid_to_total_experiences == {
        "onpolicy": 30,
        "demos": 60,
        "demos__valid": 60,
        "other__test": 30,
    }


# Losses and storages


def test_losses_are_built_once():
    training = pipeline()
    assert training.get_loss("ppo") is training.get_loss("ppo")
    assert list(training.current_stage_losses) == ["ppo"]
    assert training.get_loss("ppo").clip_param == PPOConfig["clip_param"]


def test_the_default_storage_collects_rollouts():
    training = pipeline()
    assert training.rollout_storage_uuid == "onpolicy"
    assert isinstance(training.rollout_storage, RolloutBlockStorage)
    assert training.current_stage_storage == {"onpolicy": training.rollout_storage}


def test_the_rollout_storage_is_found_by_its_type_without_building_the_others():
    Demonstrations.built = 0
    component = StageComponent(uuid="imitate", storage_uuid="demos", loss_names=["ppo"])
    training = pipeline(
        stage(stage_components=[component], num_mini_batch=1),
        named_storages={"demos": Builder(Demonstrations), "rollouts": Builder(RolloutBlockStorage)},
    )
    assert training.rollout_storage_uuid == "rollouts"
    training.validate(num_samplers=4)
    assert Demonstrations.built == 0
    assert list(training.current_stage_storage) == ["demos", "rollouts"]
    assert Demonstrations.built == 1


def test_ambiguous_rollout_storages_are_refused():
    storages = {"a": RolloutBlockStorage(), "b": Builder(RolloutBlockStorage)}
    with pytest.raises(ExperimentConfigError, match="say which with rollout_storage_uuid"):
        pipeline(named_storages=storages)
    assert pipeline(named_storages=storages, rollout_storage_uuid="b").rollout_storage_uuid == "b"
    with pytest.raises(ExperimentConfigError, match='no storage called "c"'):
        pipeline(named_storages=storages, rollout_storage_uuid="c")


def test_training_without_rollouts_is_announced():
    component = StageComponent(uuid="imitate", storage_uuid="demos", loss_names=["ppo"])
    with pytest.warns(UserWarning, match="off-policy only"):
        training = pipeline(stage(stage_components=[component]), named_storages={"demos": Demonstrations()})
    assert training.rollout_storage is None
    assert list(training.current_stage_storage) == ["demos"]


def test_a_stage_object_is_used_once():
    once = stage()
    with pytest.raises(ExperimentConfigError, match="more than once"):
        pipeline(once, once)


def test_a_pipeline_can_be_pickled():
    training = pipeline(stage(), stage(update_repeats=1))
    other = pickle.loads(pickle.dumps(training))
    assert other.pipeline_stages[1].training_settings.num_steps == 8
    other.training_settings.num_steps = 9
    assert other.pipeline_stages[1].training_settings.num_steps == 9
    assert training.pipeline_stages[1].training_settings.num_steps == 8


# Validation


def test_a_good_pipeline_is_valid():
    pipeline(stage(), stage(num_mini_batch=0, update_repeats=0)).validate(num_samplers=2)
    pipeline(stage(mini_batches_over="steps", num_mini_batch=16)).validate(num_samplers=2)
    pipeline(stage(use_gae=False), gae_lambda=None).validate(num_samplers=2)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_missing_settings_are_named(name):
    with pytest.raises(ExperimentConfigError, match=f"the training setting {name} is missing") as error:
        pipeline(stage(), **{name: None}).validate(num_samplers=4)
    assert "stage 0" in str(error.value)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_mini_batch": 8}, "8 mini-batches cannot be cut from 4 task samplers"),
        ({"num_mini_batch": 33, "mini_batches_over": "steps"}, "33 mini-batches cannot be cut from 32 steps"),
        ({"loss_names": ["ppq"]}, 'did you mean "ppo"'),
        (
            {"stage_components": [StageComponent(uuid="c", storage_uuid="onpolcy", loss_names=["ppo"])]},
            'did you mean "onpolicy"',
        ),
    ],
)
def test_pipelines_that_cannot_run(kwargs, message):
    with pytest.raises(ExperimentConfigError, match=message):
        pipeline(stage(**kwargs)).validate(num_samplers=4)


def test_a_schedule_and_a_kl_target_are_too_much():
    schedule = Builder(torch.optim.lr_scheduler.LambdaLR, {"lr_lambda": LinearDecay(steps=10)})
    pipeline(stage(kl_stop=0.01), lr_scheduler_builder=schedule).validate(num_samplers=4)
    with pytest.raises(ExperimentConfigError, match="two rules want to set the learning rate"):
        pipeline(stage(kl_target=0.01), lr_scheduler_builder=schedule).validate(num_samplers=4)


def test_a_pipeline_needs_a_stage():
    with pytest.raises(ExperimentConfigError, match="has no stages"):
        TrainingPipeline(
            named_losses={}, pipeline_stages=[], optimizer_builder=Builder(torch.optim.Adam), **SETTINGS
        ).validate(num_samplers=1)


def test_one_number_of_repeats_for_each_loss():
    component = StageComponent(
        uuid="c",
        storage_uuid="onpolicy",
        loss_names=["ppo"],
        training_settings=TrainingSettings(update_repeats=[1, 2]),
    )
    with pytest.raises(ExperimentConfigError, match="one number for each loss"):
        pipeline(stage(stage_components=[component])).validate(num_samplers=4)


def test_a_stream_has_no_mini_batches():
    component = StageComponent(uuid="imitate", storage_uuid="demos", loss_names=["ppo"])
    training = pipeline(
        stage(stage_components=[component]),
        named_storages={"demos": Builder(Demonstrations), "onpolicy": Builder(RolloutBlockStorage)},
    )
    with pytest.raises(ExperimentConfigError, match="streaming storage cannot be cut"):
        training.validate(num_samplers=4)


def test_early_stopping_needs_a_single_worker():
    training = pipeline(stage(early_stopping_criterion=StopWhenGood()))
    training.validate(num_samplers=4)
    with pytest.raises(ExperimentConfigError, match="one training worker only"):
        training.validate(num_samplers=4, num_workers=2)


def test_evaluation_has_one_component():
    components = [StageComponent(uuid=x, storage_uuid=x, loss_names=[]) for x in ("a", "b")]
    training = pipeline(valid_pipeline_stage=stage(-1, stage_components=components))
    training.named_storages.update(a=Demonstrations(), b=Demonstrations())
    with pytest.raises(ExperimentConfigError, match="valid pipeline stage has more than one component"):
        training.validate(num_samplers=4)
