"""Every name that AllenAct's experiments and plugins import is importable from the same place."""

from __future__ import annotations

import importlib

import pytest

CORE = "allenact.algorithms.onpolicy_sync"
BASE = "allenact.base_abstractions"

# module -> the names that experiments, plugins and tests written for AllenAct import from it
NAMES = {
    "allenact": "__version__",
    "allenact.main": "get_argument_parser get_args find_sub_modules load_config main",
    "allenact._constants": "ALLENACT_INSTALL_DIR",
    f"{CORE}.runner": "OnPolicyRunner SaveDirFormat CONFIG_KWARGS_STR",
    f"{CORE}.engine": (
        "OnPolicyRLEngine OnPolicyTrainer OnPolicyInference TRAIN_MODE_STR VALID_MODE_STR TEST_MODE_STR"
    ),
    f"{CORE}.storage": (
        "ExperienceStorage RolloutStorage RolloutBlockStorage StreamingStorageMixin MiniBatchStorageMixin"
    ),
    f"{CORE}.policy": (
        "ActorCriticModel LinearActorCriticHead LinearCriticHead LinearActorHead DistributionType "
        "MemoryDimType MemoryShapeType MemorySpecType FullMemorySpecType ObservationType ActionType "
        "Memory ActorCriticOutput CategoricalDistr"
    ),
    f"{CORE}.misc": "TrackingInfo TrackingInfoType",
    f"{CORE}.vector_sampled_tasks": (
        "VectorSampledTasks SingleProcessVectorSampledTasks DelaySignalHandling STEP_COMMAND NEXT_TASK_COMMAND "
        "RENDER_COMMAND CLOSE_COMMAND OBSERVATION_SPACE_COMMAND ACTION_SPACE_COMMAND CALL_COMMAND SAMPLER_COMMAND "
        "ATTR_COMMAND SAMPLER_ATTR_COMMAND RESET_COMMAND SEED_COMMAND PAUSE_COMMAND RESUME_COMMAND "
        "DEFAULT_MP_CONTEXT_TYPE COMPLETE_TASK_METRICS_KEY COMPLETE_TASK_CALLBACK_KEY"
    ),
    f"{CORE}.losses": "A2C ACKTR A2CACKTR PPO",
    f"{CORE}.losses.abstract_loss": "AbstractActorCriticLoss ObservationType",
    f"{CORE}.losses.ppo": "PPO PPOValue PPOConfig",
    f"{CORE}.losses.a2cacktr": "A2CACKTR A2C ACKTR A2CConfig",
    f"{CORE}.losses.imitation": "Imitation",
    f"{CORE}.losses.grouped_action_imitation": "GroupedActionImitation",
    "allenact.algorithms.offpolicy_sync.losses.abstract_offpolicy_loss": "AbstractOffPolicyLoss Memory",
    f"{BASE}.experiment_config": (
        "ExperimentConfig MachineParams TaskSampler FrozenClassVariables split_processes_onto_devices"
    ),
    f"{BASE}.task": "Task TaskSampler SubTaskType",
    f"{BASE}.sensor": (
        "Sensor SensorSuite ExpertActionSensor ExpertPolicySensor AbstractExpertSensor "
        "AbstractExpertActionSensor AbstractExpertPolicySensor prepare_locals_for_super"
    ),
    f"{BASE}.misc": (
        "RLStepResult ActorCriticOutput Memory Loss LossOutput GenericAbstractLoss ModelType "
        "ObservationType DistributionType"
    ),
    f"{BASE}.distributions": ("Distr CategoricalDistr ConditionalDistr SequentialDistr TeacherForcingDistr AddBias"),
    f"{BASE}.preprocessor": "Preprocessor SensorPreprocessorGraph PreprocessorGraph ObservationSet",
    f"{BASE}.callbacks": "Callback",
    "allenact.embodiedai.models.basic_models": "SimpleCNN RNNStateEncoder LinearActorCritic RNNActorCritic",
    "allenact.utils": "spaces_utils",
    "allenact.utils.experiment_utils": (
        "TrainingPipeline PipelineStage StageComponent TrainingSettings Builder LinearDecay "
        "MultiLinearDecay EarlyStoppingCriterion NeverEarlyStoppingCriterion OffPolicyPipelineComponent "
        "ScalarMeanTracker LoggingPackage set_seed set_deterministic_cudnn recursive_update "
        "evenly_distribute_count_into_bins download_checkpoint_from_wandb"
    ),
    "allenact.utils.inference": "InferenceAgent",
    "allenact.utils.misc_utils": "prepare_locals_for_super partition_limits",
    "allenact.utils.model_utils": "make_cnn",
    "allenact.utils.multi_agent_viz_utils": "MultiTrajectoryViz",
    "allenact.utils.spaces_utils": ("flatten unflatten flatdim flatten_space torch_point numpy_point action_list"),
    "allenact.utils.system": "ImportChecker get_logger init_logging find_free_port",
    "allenact.utils.tensor_utils": "ScaleBothSides batch_observations SummaryWriter",
    "allenact.utils.viz_utils": (
        "VizSuite AgentViewViz TrajectoryViz ActorViz TensorViz1D TensorViz2D AbstractViz AbstractTensorViz"
    ),
    "allenact_plugins.gym_plugin.gym_models": "MemorylessActorCritic",
    "allenact_plugins.gym_plugin.gym_sensors": "GymBox2DSensor GymMuJoCoSensor",
    "allenact_plugins.gym_plugin.gym_tasks": (
        "GymTask GymContinuousTask GymTaskSampler default_task_selector sensor_selector"
    ),
    "allenact_plugins.gym_plugin.gym_distributions": "GaussianDistr",
    "allenact_plugins.gym_plugin.gym_environment": "GymEnvironment",
    "allenact_plugins.minigrid_plugin.minigrid_models": (
        "MiniGridSimpleConvBase MiniGridSimpleConvRNN MiniGridSimpleConv"
    ),
    "allenact_plugins.minigrid_plugin.minigrid_offpolicy": (
        "MiniGridExpertTrajectoryStorage MiniGridOffPolicyExpertCELoss transform_demos"
    ),
    "allenact_plugins.minigrid_plugin.minigrid_sensors": "EgocentricMiniGridSensor MiniGridMissionSensor",
    "allenact_plugins.minigrid_plugin.minigrid_tasks": (
        "MiniGridTask MiniGridTaskSampler AskForHelpSimpleCrossingTask"
    ),
    "allenact_plugins.minigrid_plugin.minigrid_environments": "AskForHelpSimpleCrossing FastCrossing",
    "allenact_plugins.minigrid_plugin.configs.minigrid_nomemory": "MiniGridNoMemoryExperimentConfig",
    "allenact_plugins.babyai_plugin.babyai_constants": "BABYAI_EXPERT_TRAJECTORIES_DIR",
    "allenact_plugins.babyai_plugin.babyai_models": "BabyAIRecurrentACModel",
    "allenact_plugins.babyai_plugin.babyai_tasks": "BabyAITask BabyAITaskSampler",
    "constants": "ABS_PATH_OF_TOP_LEVEL_DIR",
    "main": "main",
}

# name -> modules that must all hand out the same object
SHARED = {
    "Memory": [
        f"{BASE}.misc",
        f"{BASE}.memory",
        f"{CORE}.policy",
        "allenact.algorithms.offpolicy_sync.losses.abstract_offpolicy_loss",
    ],
    "ActorCriticOutput": [f"{BASE}.misc", f"{CORE}.policy"],
    "CategoricalDistr": [f"{BASE}.distributions", f"{CORE}.policy"],
    "TaskSampler": [f"{BASE}.task", f"{BASE}.experiment_config"],
    "prepare_locals_for_super": ["allenact.utils.misc_utils", f"{BASE}.sensor"],
    "SaveDirFormat": [f"{CORE}.runner", "allenact.runs.run_directory"],
    "PPO": [f"{CORE}.losses", f"{CORE}.losses.ppo"],
    "A2C": [f"{CORE}.losses", f"{CORE}.losses.a2cacktr"],
    "set_seed": ["allenact.utils.experiment_utils", "allenact.utils.seeding"],
    "ScalarMeanTracker": ["allenact.utils.experiment_utils", "allenact.utils.metrics"],
    "main": ["main", "allenact.main"],
}

OUT_OF_SCOPE = [
    "allenact_plugins.habitat_plugin.habitat_sensors",
    "allenact_plugins.ithor_plugin.ithor_tasks",
    "allenact_plugins.manipulathor_plugin",
    "allenact_plugins.navigation_plugin.objectnav.models",
    "allenact_plugins.robothor_plugin.robothor_sensors",
    "allenact.embodiedai.aux_losses.losses",
    "allenact.embodiedai.mapping",
    "allenact.embodiedai.models.visual_nav_models",
    "allenact.embodiedai.preprocessors.resnet",
    "allenact.embodiedai.sensors.vision_sensors",
    "allenact.embodiedai.storage.vdr_storage",
    "allenact.utils.cacheless_frcnn",
]


@pytest.mark.parametrize("module", NAMES)
def test_names_import_from_where_upstream_has_them(module):
    found = importlib.import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("name", SHARED)
def test_every_path_leads_to_the_same_object(name):
    objects = [getattr(importlib.import_module(module), name) for module in SHARED[name]]
    assert all(each is objects[0] for each in objects)


@pytest.mark.parametrize("module", OUT_OF_SCOPE)
def test_an_out_of_scope_module_says_so(module):
    with pytest.raises(ImportError, match=r"(?s)out of scope.*do: "):
        importlib.import_module(module)


def test_a_misspelt_module_is_just_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'allenact\.utils\.experimentutils'"):
        importlib.import_module("allenact.utils.experimentutils")
