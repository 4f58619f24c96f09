"""InferenceAgent on a model whose actions say what it was given."""

from collections import OrderedDict

import gymnasium as gym
import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync.policy import ActorCriticModel
from allenact.algorithms.onpolicy_sync.storage import RolloutBlockStorage
from allenact.base_abstractions.distributions import CategoricalDistr
from allenact.base_abstractions.experiment_config import ExperimentConfig
from allenact.base_abstractions.misc import ActorCriticOutput
from allenact.base_abstractions.preprocessor import Preprocessor, SensorPreprocessorGraph
from allenact.embodiedai.models.basic_models import RNNActorCritic
from allenact.errors import CheckpointError, ExperimentConfigError
from allenact.pipeline.builder import Builder
from allenact.pipeline.pipeline import TrainingPipeline
from allenact.pipeline.stage import PipelineStage
from allenact.utils.inference import InferenceAgent

SPACES = gym.spaces.Dict({"x": gym.spaces.Box(-1, 1, (3,), np.float32)})
ACTIONS = gym.spaces.Discrete(5)


class Counter(ActorCriticModel):
    """Chooses the number of steps since the episode began, which it keeps in its memory; writes a diary."""

    def __init__(self):
        super().__init__(ACTIONS, SPACES)
        self.diary = []

    def _recurrent_memory_specification(self):
        return {"count": ((("sampler", None), ("number", 1)), torch.float32)}

    def forward(self, observations, memory, prev_actions, masks):
        count = memory.tensor("count") * masks[0]  # [1, 1]
        self.diary.append((observations["x"].tolist(), prev_actions.tolist(), masks.item(), count.item()))
        logits = torch.full((1, 1, 5), -torch.inf)
        logits[..., int(count) % 5] = 0.0
        output = ActorCriticOutput(CategoricalDistr(logits=logits), torch.zeros(1, 1, 1), {})
        return output, memory.set_tensor("count", count + 1)


def counter_agent(**kwargs):
    return InferenceAgent(
        actor_critic=Counter(),
        rollout_storage=RolloutBlockStorage(),
        device=torch.device("cpu"),
        sensor_preprocessor_graph=None,
        **kwargs,
    )


@pytest.mark.parametrize("refresh", [1, 2, 128])
def test_the_model_sees_previous_action_mask_and_memory(refresh):
    agent = counter_agent(steps_before_rollout_refresh=refresh)
    for _ in range(2):  # the second task begins like the first
        agent.actor_critic.diary.clear()
        agent.reset()
        actions = [agent.act(observations={"x": np.full(3, step, np.float32)}) for step in range(7)]
        assert actions == [0, 1, 2, 3, 4, 0, 1]
        assert all(type(action) is int for action in actions)
        observed, previous, masks, counts = zip(*agent.actor_critic.diary, strict=True)
        assert [obs[0][0][0] for obs in observed] == list(range(7))
        assert [action[0][0] for action in previous] == [0, 0, 1, 2, 3, 4, 0]
        assert masks == (0.0, *[1.0] * 6)
        assert counts == tuple(range(7))
        assert agent.steps_taken_in_task == 7


def test_the_storage_stays_small():
    agent = counter_agent(steps_before_rollout_refresh=4)
    agent.reset()
    for _ in range(30):
        agent.act({"x": np.zeros(3, np.float32)})
        assert agent.rollout_storage.step <= 4


def rnn_model(**kwargs):
    return RNNActorCritic("x", ACTIONS, SPACES, hidden_size=4)


def test_no_gradients_and_evaluation_mode():
    model = rnn_model()
    agent = InferenceAgent(
        actor_critic=model,
        rollout_storage=RolloutBlockStorage(),
        device=torch.device("cpu"),
        sensor_preprocessor_graph=None,
    )
    for _ in range(3):
        agent.act({"x": np.ones(3, np.float32)})
    assert not agent.memory.tensor("rnn").requires_grad
    assert not model.training


class Config(ExperimentConfig):
    def __init__(self, graph=None, actions=ACTIONS, storages=None):
        self.graph, self.actions, self.storages = graph, actions, storages

    def tag(self):
        return "Config"

    def training_pipeline(self, **kwargs):
        return TrainingPipeline(
            named_losses={},
            pipeline_stages=[PipelineStage(loss_names=[], max_stage_steps=1)],
            optimizer_builder=Builder(torch.optim.Adam),
            named_storages=self.storages,
        )

    def machine_params(self, mode="train", **kwargs):
        assert mode == "test"
        return {"nprocesses": 1, "devices": [], "sensor_preprocessor_graph": self.graph}

    def create_model(self, sensor_preprocessor_graph, **kwargs):
        assert sensor_preprocessor_graph is self.graph
        return rnn_model()

    def make_sampler_fn(self, **kwargs):
        raise NotImplementedError

    def train_task_sampler_args(self, *args, **kwargs):
        raise NotImplementedError


def new_agent(**kwargs):
    return InferenceAgent.from_experiment_config(Config(), device=torch.device("cpu"), **kwargs)


def same_weights(agent, model):
    ours = agent.actor_critic.state_dict()
    return all(torch.equal(ours[name], value) for name, value in model.state_dict().items())


def test_weights_come_from_a_checkpoint_or_a_dict(tmp_path):
    model = rnn_model()
    path = str(tmp_path / "model.pt")
    torch.save({"model_state_dict": model.state_dict(), "total_steps": 5}, path)
    assert same_weights(new_agent(checkpoint_path=path), model)
    assert same_weights(new_agent(model_state_dict=model.state_dict()), model)
    assert same_weights(new_agent(model_state_dict={"model_state_dict": model.state_dict()}), model)
    assert not same_weights(new_agent(), model)
    with pytest.raises(CheckpointError, match="given twice"):
        new_agent(checkpoint_path=path, model_state_dict=model.state_dict())
    with pytest.raises(CheckpointError, match="another model"):
        new_agent(model_state_dict={"linear.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError):
        new_agent(checkpoint_path=str(tmp_path / "missing.pt"))


def test_sampling_and_determinism():
    model = rnn_model()
    observation = {"x": np.ones(3, np.float32)}
    torch.manual_seed(0)
    sampling = new_agent(model_state_dict=model.state_dict())
    deterministic = new_agent(model_state_dict=model.state_dict(), deterministic=True)
    sampled, best = set(), set()
    for _ in range(40):
        for agent, actions in ((sampling, sampled), (deterministic, best)):
            agent.reset()
            actions.add(agent.act(observation))
    assert len(best) == 1
    assert len(sampled) > 1


class Double(Preprocessor):
    def __init__(self):
        super().__init__(["raw"], "x", gym.spaces.Box(-2, 2, (3,), np.float32))

    def process(self, obs, *args, **kwargs):
        assert obs["raw"].shape == (1, 3)
        return obs["raw"] * 2

    def to(self, device):
        return self


def test_preprocessors_are_applied():
    graph = SensorPreprocessorGraph(gym.spaces.Dict({"raw": gym.spaces.Box(-1, 1, (3,), np.float32)}), [Double()])
    agent = counter_agent()
    agent.sensor_preprocessor_graph = graph
    raw = {"raw": np.full(3, 0.5, np.float32)}
    agent.act(raw)
    assert agent.actor_critic.diary[0][0] == [[[1.0, 1.0, 1.0]]]
    assert list(raw) == ["raw"]
    built = InferenceAgent.from_experiment_config(Config(graph=graph), device=torch.device("cpu"))
    assert built.sensor_preprocessor_graph is graph


class Composite(Counter):
    def __init__(self):
        super().__init__()
        self.action_space = gym.spaces.Dict(
            OrderedDict([("push", gym.spaces.Box(-1, 1, (2,))), ("grasp", gym.spaces.Discrete(2))])
        )

    def forward(self, observations, memory, prev_actions, masks):
        class Fixed:
            def sample(self):
                return {"push": torch.tensor([[[0.25, -0.5]]]), "grasp": torch.tensor([[1]])}

        assert prev_actions["push"].shape == (1, 1, 2)
        return ActorCriticOutput(Fixed(), torch.zeros(1, 1, 1), {}), memory


def test_composite_actions_are_plain_python():
    agent = counter_agent()
    agent.actor_critic = Composite()
    for _ in range(2):
        assert agent.act({"x": np.zeros(3, np.float32)}) == OrderedDict([("push", [0.25, -0.5]), ("grasp", 1)])


def test_an_experiment_without_rollouts_has_no_agent():
    class Demonstrations:
        pass

    with (
        pytest.warns(UserWarning, match="off-policy only"),
        pytest.raises(ExperimentConfigError, match="needs a rollout"),
    ):
        InferenceAgent.from_experiment_config(
            Config(storages={"demos": Builder(Demonstrations)}), device=torch.device("cpu")
        )
