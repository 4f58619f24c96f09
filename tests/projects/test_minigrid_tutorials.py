"""The MiniGrid tutorials: model, sensors and tasks fit together, and the recipe is the one in the text."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("minigrid")

from allenact.algorithms.onpolicy_sync.losses.imitation import Imitation
from allenact.base_abstractions.misc import Memory
from allenact.utils import spaces_utils
from allenact_plugins.minigrid_plugin.configs.minigrid_nomemory import MiniGridNoMemoryExperimentConfig
from allenact_plugins.minigrid_plugin.minigrid_tasks import MiniGridTask
from projects.tutorials.minigrid_tutorial import MiniGridTutorialExperimentConfig
from projects.tutorials.minigrid_tutorial_conds import (
    ConditionedMiniGridSimpleConvRNN,
    MiniGridTutorialCondsExperimentConfig,
)

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = [
    MiniGridTutorialExperimentConfig,
    MiniGridNoMemoryExperimentConfig,
    MiniGridTutorialCondsExperimentConfig,
]


def make_sampler(config, mode="train", process_ind=0, seeds=(11, 12)):
    args = getattr(config, f"{mode}_task_sampler_args")(process_ind, len(seeds), seeds=seeds)
    return config.make_sampler_fn(**args, mp_ctx=None)


def zero_memory(model):
    memory = Memory()
    for name, (dims, dtype) in (model.recurrent_memory_specification or {}).items():
        shape = [1 if dim == "sampler" else size for dim, size in dims]
        memory.check_append(name, torch.zeros(shape, dtype=dtype), [dim for dim, _ in dims].index("sampler"))
    return memory


def run(model, observations, memory, mask=1.0):
    inputs = {uuid: torch.as_tensor(value)[None, None] for uuid, value in observations.items()}  # [1, 1, O...]
    return model(observations=inputs, memory=memory, prev_actions=None, masks=torch.full((1, 1, 1), mask))


@pytest.mark.parametrize("config_class", EXPERIMENTS)
def test_the_model_plays_the_task(config_class):
    torch.manual_seed(0)
    config = config_class()
    model, task = config.create_model(), make_sampler(config).next_task()
    assert model.action_space == task.action_space
    memory, observations = zero_memory(model), task.get_observations()
    while not task.is_done():
        output, memory = run(model, observations, memory)
        assert output.values.shape == (1, 1, 1)
        flat = spaces_utils.flatten(model.action_space, output.distributions.sample())  # [1, 1, A]
        (action,) = spaces_utils.action_list(model.action_space, flat)
        observations = task.step(action).observation
    assert task.metrics()["ep_length"] <= 100


@pytest.mark.parametrize("config_class", EXPERIMENTS)
def test_seeds_reach_the_samplers(config_class):
    config = config_class()

    def starts(process_ind, seeds):
        sampler = make_sampler(config, "train", process_ind, seeds)
        poses = []
        for _ in range(8):
            env = sampler.next_task().env
            poses.append((*map(int, env.agent_pos), int(env.agent_dir)))
        return poses

    assert starts(0, (1, 2)) == starts(1, (2, 1))
    assert starts(0, (1, 2)) != starts(1, (1, 2))


def test_evaluation_plays_the_same_tasks_every_time():
    config = MiniGridTutorialExperimentConfig()
    assert config.machine_params("train")["nprocesses"] == 128
    for mode, count in (("valid", 20), ("test", 40)):
        assert config.machine_params(mode)["nprocesses"] == 16
        seeds = []
        for process_ind in range(2):
            sampler = make_sampler(config, mode, process_ind)
            assert sampler.length == count
            while (task := sampler.next_task()) is not None:
                seeds.append(task.env.saved_seed)
        assert seeds == list(range(2 * count))


def test_recipe():
    pipeline = MiniGridTutorialExperimentConfig().training_pipeline()
    (stage,) = pipeline.pipeline_stages
    settings = pipeline.training_settings
    assert stage.max_stage_steps == 150_000
    assert (settings.num_steps, settings.num_mini_batch, settings.update_repeats) == (16, 4, 3)
    assert (settings.gamma, settings.use_gae, settings.gae_lambda, settings.max_grad_norm) == (0.99, True, 0.95, 0.5)
    assert (settings.save_interval, settings.metric_accumulate_interval) == (10_000, 1)
    assert [config_class.tag() for config_class in EXPERIMENTS] == [
        "MiniGridTutorial",
        "MiniGridNoMemory",
        "MiniGridTutorialConds",
    ]


@pytest.mark.parametrize("config_class", EXPERIMENTS)
def test_smoke_configuration_is_accepted(config_class):
    config = config_class(**json.loads((ROOT / "configs/minigrid/smoke.json").read_text()))
    assert config.training_pipeline().pipeline_stages[0].max_stage_steps == 512


class TestActionOfTwoParts:
    config = MiniGridTutorialCondsExperimentConfig()

    def test_the_expert_answers_part_by_part(self):
        """In what a step returns, too."""
        sampler = make_sampler(self.config)
        lengths = []
        for _ in range(20):
            task = sampler.next_task()
            observation = task.get_observations()
            while not task.is_done():
                expert = spaces_utils.unflatten(
                    self.config.SENSORS[1].observation_space, torch.as_tensor(observation["expert_action"])
                )
                assert [int(part["expert_success"]) for part in expert.values()] == [1, 1]
                action = {name: int(part["action_or_policy"]) for name, part in expert.items()}
                assert 2 * action["higher"] + action["lower"] == MiniGridTask.query_expert(task)[0]
                observation = task.step(action).observation
            assert task.metrics()["success"] == 1
            lengths.append(task.num_steps_taken())
        assert sum(lengths) / len(lengths) < 5

    def test_all_four_actions_can_be_expressed(self):
        task = make_sampler(self.config).next_task()
        done = []
        task.env.step = lambda action: done.append(action) or (task.env.gen_obs(), 0.0, False, False, {})
        for higher in (0, 1):
            for lower in (0, 1):
                task.step({"higher": higher, "lower": lower})
        assert done == [0, 1, 2, 3]  # left, right, forward, pickup

    def test_the_second_part_depends_on_the_first(self):
        torch.manual_seed(0)
        model = self.config.create_model()
        assert isinstance(model, ConditionedMiniGridSimpleConvRNN)
        observations = make_sampler(self.config).next_task().get_observations()
        policy = run(model, observations, zero_memory(model))[0].distributions

        def log_prob(higher, lower):
            actions = {"higher": torch.full((1, 1), higher), "lower": torch.full((1, 1), lower)}
            return policy.log_prob(actions).item(), policy.log_prob(actions, return_dict=True)["lower"].item()

        joint = {(h, low): log_prob(h, low) for h in (0, 1) for low in (0, 1)}
        assert sum(torch.tensor(total).exp().item() for total, _ in joint.values()) == pytest.approx(1)
        assert joint[0, 0][1] != pytest.approx(joint[1, 0][1])

    def test_imitation_finds_the_expert(self):
        torch.manual_seed(0)
        pipeline = self.config.training_pipeline()
        model = self.config.create_model()
        observations = make_sampler(self.config).next_task().get_observations()
        batch = {uuid: torch.as_tensor(value)[None, None] for uuid, value in observations.items()}
        output = run(model, observations, zero_memory(model))[0]
        loss, info = pipeline.get_loss("imitation_loss").loss(
            step_count=0, batch={"observations": batch}, actor_critic_output=output
        )[:2]
        assert isinstance(pipeline.get_loss("imitation_loss"), Imitation)
        assert set(info) == {"expert_cross_entropy", "higher_cross_entropy", "lower_cross_entropy"}
        loss.backward()
        assert model.actor_critic.ac_nonrecurrent_head.embed_higher.weight.grad.abs().sum() > 0

    def test_the_teacher_leaves_in_the_first_half(self):
        (stage,) = self.config.training_pipeline().pipeline_stages
        assert [stage.teacher_forcing(steps) for steps in (0, 37_500, 75_000, 100_000)] == [1.0, 0.5, 0.0, 0.0]
