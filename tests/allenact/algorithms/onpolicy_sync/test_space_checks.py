"""Models that do not fit their tasks."""

from types import SimpleNamespace

import gymnasium as gym
import pytest

from allenact.algorithms.onpolicy_sync.engine import OnPolicyTrainer
from allenact.algorithms.onpolicy_sync.space_checks import check_spaces
from allenact.embodiedai.models.basic_models import LinearActorCritic
from allenact.errors import SpaceMismatchError
from allenact.testing.experiments import ToyExperiment

VECTOR = gym.spaces.Box(-1, 1, (4,))


def tasks_with(num_actions, **observations):
    return SimpleNamespace(
        observation_space=gym.spaces.Dict(observations), action_spaces=[gym.spaces.Discrete(num_actions)]
    )


def model_for(num_actions=2, uuid="toy", **observations):
    return LinearActorCritic(uuid, gym.spaces.Discrete(num_actions), gym.spaces.Dict(observations))


class Choice(gym.spaces.Discrete):
    """A space of somebody's own, which is the one that it is derived from."""


def test_spaces_may_be_of_derived_classes():
    model = LinearActorCritic("toy", Choice(2), gym.spaces.Dict(toy=VECTOR))
    check_spaces(model, tasks_with(2, toy=VECTOR), None)
    with pytest.raises(SpaceMismatchError, match="the model acts in"):
        check_spaces(LinearActorCritic("toy", Choice(3), gym.spaces.Dict(toy=VECTOR)), tasks_with(2, toy=VECTOR), None)


def test_a_model_may_be_built_for_more_than_the_tasks_give(caplog):
    """Experiments build the model with the expert's sensor, and give it to the tasks of training only."""
    model = model_for(toy=VECTOR, expert_action=gym.spaces.Discrete(2))
    check_spaces(model, tasks_with(2, toy=VECTOR), None)
    assert caplog.text == ""
    check_spaces(model, tasks_with(3, toy=VECTOR), None)  # and need not use every choice
    assert "the first 2 of the tasks' 3 actions" in caplog.text


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: model_for(uuid="toys", toys=VECTOR), r'(?s)expects an observation "toys".*did you mean "toy"'),
        (lambda: model_for(toy=gym.spaces.Box(-1, 1, (5,))), 'disagree about the observation "toy"'),
        (lambda: model_for(num_actions=3, toy=VECTOR), "disagree about the actions"),
    ],
)
def test_a_model_for_other_tasks_is_refused(model, message):
    with pytest.raises(SpaceMismatchError, match=message):
        check_spaces(model(), tasks_with(2, toy=VECTOR), None)


def test_a_model_that_looks_at_what_is_not_there_is_told_so():
    class Curious(LinearActorCritic):
        def forward(self, observations, **kwargs):
            return super().forward({"toy": observations["smell"]}, **kwargs)

    class Smells(ToyExperiment):
        def create_model(self, **kwargs):
            toy = super().create_model().observation_space["toy"]
            return Curious("toy", self.action_space, gym.spaces.Dict(toy=toy, smell=toy))

    with (
        OnPolicyTrainer(Smells(), seed=0, sampler_backend="serial", send=lambda message: None) as trainer,
        pytest.raises(SpaceMismatchError, match='expects an observation "smell"'),
    ):
        trainer.train()
