"""The same seed gives the same run, another seed another one, however the samplers are stepped."""

import pytest
import torch

from allenact.testing.experiments import ToyExperiment


@pytest.mark.parametrize("task", ["copy", "push_right"])
def test_same_seed_same_run(task, train, same_state):
    runs = [train(ToyExperiment(task), seed=3) for _ in range(2)]
    same_state(runs[0].parameters, runs[1].parameters)
    same_state(runs[0].logged, runs[1].logged)


def test_other_seed_other_run(train):
    first, second = train(ToyExperiment("copy"), seed=3), train(ToyExperiment("copy"), seed=4)
    assert not torch.equal(first.parameters["linear.weight"], second.parameters["linear.weight"])
    assert first.logged != second.logged


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_number_of_processes_does_not_matter(processes, train, same_state):
    config = ToyExperiment("remember", recurrent=True, stage_steps=(64,))
    serial = train(config, backend="serial")
    several = train(config, backend="process", max_sampler_processes=processes)
    same_state(serial.parameters, several.parameters)
    same_state(serial.logged, several.logged)
