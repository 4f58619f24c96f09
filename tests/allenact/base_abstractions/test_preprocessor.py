"""Graphs of preprocessors: order, what comes out, and what is refused."""

import itertools

import pytest
import torch
from gymnasium.spaces import Box, Dict

from allenact.base_abstractions.preprocessor import (
    ObservationSet,
    Preprocessor,
    PreprocessorGraph,
    SensorPreprocessorGraph,
)
from allenact.errors import ExperimentConfigError

SPACE = Box(-100.0, 100.0, (1,))
SENSORS = Dict({"a": SPACE, "b": SPACE})


class Sum(Preprocessor):
    """Adds its inputs and counts its calls."""

    def __init__(self, output, *inputs):
        super().__init__(list(inputs), output, SPACE, unused=1)
        self.calls, self.device = 0, None

    def process(self, obs, *args, **kwargs):
        self.calls += 1
        return sum(obs[uuid] for uuid in self.input_uuids)

    def to(self, device):
        self.device = device
        return self


def test_every_order_of_declaration_gives_the_same_result():
    # "e" has a short and a long way from the sensors, where a depth-first preorder goes wrong.
    for order in itertools.permutations([("c", "a", "b"), ("d", "c"), ("e", "a", "d"), ("f", "e", "c")]):
        graph = SensorPreprocessorGraph(SENSORS, [Sum(*names) for names in order])
        out = graph.get_observations({"a": torch.tensor([[1.0]]), "b": torch.tensor([[10.0]])})
        assert list(out) == ["f"]
        assert out["f"].item() == 1 + 11 + 11
        for uuid, *inputs in order:
            needed = [graph.compute_order.index(i) for i in inputs if i in graph.compute_order]
            assert all(position < graph.compute_order.index(uuid) for position in needed)


def test_exposed_are_unused_sensors_final_results_and_what_is_asked_for():
    graph = SensorPreprocessorGraph(SENSORS, [Sum("c", "a"), Sum("d", "c")])
    assert set(graph.observation_spaces.spaces) == {"b", "d"}
    graph = SensorPreprocessorGraph(SENSORS, [Sum("c", "a"), Sum("d", "c")], additional_output_uuids=["a", "c"])
    assert list(graph.observation_spaces.spaces) == ["a", "b", "c", "d"]
    assert graph.observation_spaces["c"] == SPACE


def test_what_is_there_is_not_computed_again():
    c, d = Sum("c", "a"), Sum("d", "c")
    graph = SensorPreprocessorGraph(SENSORS, [c, d])
    obs = {"a": torch.ones(1, 1), "b": torch.ones(1, 1), "c": torch.full((1, 1), 5.0)}
    assert graph.get_observations(obs)["d"].item() == 5.0
    assert (c.calls, d.calls) == (0, 1)
    assert obs["d"].item() == 5.0  # the given dict is completed


def test_builders_are_called():
    class Builder:
        def __call__(self):
            return Sum("c", "a", "b")

    graph = SensorPreprocessorGraph(SENSORS, [Builder()])
    assert isinstance(graph.get("c"), Sum)


def test_moving_reaches_every_preprocessor():
    graph = SensorPreprocessorGraph(SENSORS, [Sum("c", "a"), Sum("d", "b")])
    assert graph.device == torch.device("cpu")
    assert graph.to(torch.device("meta")) is graph
    assert {p.device.type for p in graph.preprocessors.values()} == {graph.device.type} == {"meta"}


def test_no_preprocessors_expose_the_sensors():
    obs = {"a": torch.ones(1), "b": torch.ones(1)}
    assert SensorPreprocessorGraph(SENSORS, []).get_observations(dict(obs)) == obs


def test_cycles_are_refused():
    with pytest.raises(ExperimentConfigError, match=r"(?s)need each other.*(c <- d <- c|d <- c <- d)"):
        SensorPreprocessorGraph(SENSORS, [Sum("c", "d"), Sum("d", "c")])


def test_unknown_inputs_are_refused_with_the_nearest_name():
    sensors = Dict({"rgb_lowres": SPACE})
    with pytest.raises(ExperimentConfigError, match=r'(?s)"rgb_lowers".*preprocessor "c".*did you mean "rgb_lowres"'):
        SensorPreprocessorGraph(sensors, [Sum("c", "rgb_lowers")])
    with pytest.raises(ExperimentConfigError, match="additional_output_uuids"):
        SensorPreprocessorGraph(sensors, [], additional_output_uuids=["x"])


@pytest.mark.parametrize("names", [[("a", "b")], [("c", "a"), ("c", "b")]])
def test_names_must_differ(names):
    with pytest.raises(ExperimentConfigError, match="same name"):
        SensorPreprocessorGraph(SENSORS, [Sum(*n) for n in names])


@pytest.mark.parametrize("removed", [PreprocessorGraph, ObservationSet])
def test_removed_classes_say_what_to_use(removed):
    with pytest.raises(DeprecationWarning, match=f"{removed.__name__}.*SensorPreprocessorGraph"):
        removed({}, [])
