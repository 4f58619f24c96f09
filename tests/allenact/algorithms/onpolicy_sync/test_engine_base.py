"""How many processes and threads the workers of each mode have."""

import importlib
import multiprocessing
import pickle
import signal
from types import SimpleNamespace

import pytest
import torch

from allenact.algorithms.onpolicy_sync.engine import OnPolicyInference, OnPolicyTrainer
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import (
    BatchedVectorTasks,
    ProcessVectorTasks,
    SingleProcessVectorSampledTasks,
    factory,
)
from allenact.base_abstractions.experiment_config import MachineParams
from allenact.runs.worker_processes import Ready, evaluation_worker
from allenact.testing.experiments import ToyExperiment
from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch):
    for module in ("engine_base", "vector_sampled_tasks.factory", "vector_sampled_tasks.process"):
        module = importlib.import_module(f"allenact.algorithms.onpolicy_sync.{module}")
        monkeypatch.setattr(module, "usable_cores", lambda: 4)
    monkeypatch.setattr(factory, "worker_context", lambda: multiprocessing.get_context("fork"))


@pytest.mark.parametrize("max_processes", [None, 3])
@pytest.mark.parametrize("backend", ["auto", "process", "serial"])
def test_validation_has_one_process(backend, max_processes):
    with OnPolicyInference(
        ToyExperiment(num_eval_samplers=3), "valid", sampler_backend=backend, max_sampler_processes=max_processes
    ) as engine:
        assert type(engine.vector_tasks) is SingleProcessVectorSampledTasks
        assert engine.num_samplers == 3


def test_a_test_has_several_processes():
    with OnPolicyInference(ToyExperiment(num_eval_samplers=2), "test") as engine:
        assert type(engine.vector_tasks) is ProcessVectorTasks
        assert "in 2 worker processes" in engine.vector_tasks.description


@pytest.mark.parametrize(
    ("mode", "backend", "threads"),
    [("valid", "auto", 1), ("valid", "batched", 1), ("valid", "process", 1), ("test", "auto", 4)],
)
def test_a_batch_beside_training_has_one_thread(mode, backend, threads):
    config = GymMuJoCoTutorialExperimentConfig()
    config.machine_params = lambda mode: {"nprocesses": 4, "devices": []}
    with OnPolicyInference(config, mode, sampler_backend=backend) as engine:
        assert type(engine.vector_tasks) is BatchedVectorTasks
        assert engine.vector_tasks.batch.simulations.num_threads == threads


def test_the_model_has_one_thread_in_validation():
    torch.set_num_threads(2)
    before, said = signal.getsignal(signal.SIGTERM), []

    def runner_is_gone():
        raise EOFError

    try:
        pipe = SimpleNamespace(send_bytes=said.append, recv=runner_is_gone)
        evaluation_worker(pipe, config=ToyExperiment(), mode="valid")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [pickle.loads(message) for message in said] == [Ready()]
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("here", "cores"), [(None, 1), ([0, 1], 2), ([0], 4)])
def test_workers_share_the_cores_of_their_machine(here, cores):
    config = ToyExperiment()
    config.machine_params = lambda mode: MachineParams(nprocesses=[4] * 4, devices=["cpu"] * 4, local_worker_ids=here)
    with OnPolicyInference(config, "test", num_workers=4, sampler_backend="process") as engine:
        assert f"in {cores} worker process" in engine.vector_tasks.description


def other_storage(trainer):
    trainer.training_pipeline.current_stage.stage_components[0].storage_uuid = "demonstrations"


@pytest.mark.parametrize(
    ("change", "sends"),
    [
        (lambda trainer: None, True),
        (lambda trainer: setattr(trainer, "device", torch.device("cuda")), False),
        (lambda trainer: setattr(trainer, "preprocessors", object()), False),
        (lambda trainer: setattr(trainer, "mode", "test"), False),
        (lambda trainer: setattr(trainer.training_pipeline.current_stage, "teacher_forcing", lambda steps: 1.0), False),
        (other_storage, False),
    ],
)
def test_when_sampler_processes_are_given_the_policy(change, sends):
    with OnPolicyTrainer(GymMuJoCoTutorialExperimentConfig(), seed=0, send=lambda message: None) as trainer:
        change(trainer)
        before = torch.get_rng_state()
        assert trainer._sends_policy() == sends
        assert torch.equal(torch.get_rng_state(), before)
