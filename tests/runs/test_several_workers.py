"""Several training workers are one learner, several test workers one tester."""

import json
import multiprocessing
from pathlib import Path

import pytest

from allenact.algorithms.onpolicy_sync.checkpointing import load_checkpoint
from allenact.algorithms.onpolicy_sync.runner import OnPolicyRunner
from allenact.base_abstractions.experiment_config import MachineParams
from allenact.base_abstractions.misc import GenericAbstractLoss, LossOutput
from allenact.base_abstractions.sensor import SensorSuite
from allenact.testing.experiments import ToyExperiment
from allenact.utils.system import find_free_port
from allenact_plugins.gym_plugin.normalized_actor_critic import NormalizedActorCritic


class Weights(GenericAbstractLoss):
    """Reports the size of the weights and its square, whose means agree only if all workers have the same weights.

    The derivative by each weight is `slope` for each row of the batch.
    """

    def __init__(self, slope=0.0):
        self.slope = slope

    def loss(self, *, model, batch, batch_memory, stream_memory):
        weight = model.linear.weight.double().abs().sum()
        rows = batch["actions"].shape[0] * batch["actions"].shape[1]
        return LossOutput(
            value=self.slope * rows * weight,
            info={"sum": weight, "square": weight**2},
            per_epoch_info={},
            batch_memory=batch_memory,
            stream_memory=stream_memory,
            bsize=rows,
        )


class Shared(ToyExperiment):
    """The toy with so many samplers for each worker of a mode."""

    def __init__(self, train, test=(1,), slope=0.0, **kwargs):
        self.slope = slope
        super().__init__(**{"num_eval_samplers": 0, **kwargs})
        self.samplers = {"train": list(train), "test": list(test), "valid": [0]}

    def machine_params(self, mode="train", **kwargs):
        counts = self.samplers[mode]
        return MachineParams(nprocesses=counts, devices=["cpu"] * len(counts))

    def training_pipeline(self, **kwargs):
        pipeline = super().training_pipeline()
        pipeline.named_losses["weights"] = Weights(self.slope)
        stage = pipeline.pipeline_stages[0]
        stage.loss_names.append("weights")
        stage.loss_weights = [0.0 if self.slope else 1.0, 1.0]
        for component in stage.stage_components:
            component.loss_names.append("weights")
        return pipeline


def make_runner(config, folder, **kwargs):
    return OnPolicyRunner(
        config,
        output_dir=folder,
        loaded_config_src_files=None,
        seed=1,
        multiprocessing_start_method="fork",
        sampler_backend="serial",
        disable_tensorboard=True,
        **kwargs,
    )


def train(folder, checkpoint=None, steps=96, **kwargs):
    """Trains with two workers, which have two samplers and one; returns the checkpoints and the logs."""
    kwargs = {"stage_steps": (steps,), "save_interval": 24, "metric_interval": 24, **kwargs}
    config = Shared([2, 1], num_mini_batch=1, update_repeats=1, **kwargs)
    with make_runner(config, folder) as runner:
        start = runner.start_train(checkpoint=checkpoint)
    lines = (folder / "metrics" / "Toy" / start / "metrics.jsonl").read_text().splitlines()
    return sorted(Path(runner.checkpoint_dir(start)).iterdir()), [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    return folder, *train(folder)


def test_steps_of_all_workers_are_counted(trained):
    _, checkpoints, logs = trained
    assert [log["training_steps"] for log in logs] == [24, 48, 72, 96]
    assert [log["train-misc/onpolicy_total_experiences"] for log in logs] == [24, 48, 72, 96]
    assert [path.name[-5:-3] for path in checkpoints] == ["24", "48", "72", "96"]
    assert load_checkpoint(checkpoints[-1]).total_steps == 96
    episodes = sum(log["train-misc/num_tasks_completed_since_last_log"] for log in logs)
    assert episodes == 3 * (32 // 5), "those of both"


def test_workers_keep_the_same_weights(trained):
    sums = []
    for log in trained[2]:
        mean, mean_square = (log[f"train-onpolicy-losses/weights/{key}"] for key in ("sum", "square"))
        assert mean_square == pytest.approx(mean**2, rel=1e-9)
        assert log["train-onpolicy-misc/global_batch_size"] == 24, "16 rows of one, 8 of the other"
        assert log["train-onpolicy-misc/worker_batch_size"] == 12
        sums.append(mean)
    assert len(set(sums)) == 4, "and they do change"


def test_gradients_are_those_of_the_mean_over_all_rows(tmp_path):
    (log,) = train(tmp_path, steps=24, slope=1.0)[1]
    of_each_weight = (16 * 16 + 8 * 8) / 24
    assert log["train-onpolicy-misc/total_grad_norm"] == pytest.approx(of_each_weight * (5 * 4) ** 0.5)


class Normalized(ToyExperiment):
    """Two workers with two samplers and one, and a model that keeps statistics."""

    def machine_params(self, mode="train", **kwargs):
        return MachineParams(nprocesses=[2, 1] if mode == "train" else [0], devices=["cpu"] * (1 + (mode == "train")))

    def create_model(self, **kwargs):
        spaces = SensorSuite(self.sensors).observation_spaces
        return NormalizedActorCritic("toy", self.action_space, spaces, hidden_sizes=(4,))


@pytest.mark.slow
def test_statistics_and_rate_are_of_all_workers(tmp_path):
    kwargs = {"stage_steps": (96,), "save_interval": 24, "metric_interval": 24, "num_mini_batch": 1}
    config = Normalized("push_right", num_eval_samplers=0, kl_target=0.01, update_repeats=2, **kwargs)
    with make_runner(config, tmp_path) as runner:
        start = runner.start_train()
    lines = (tmp_path / "metrics" / "Toy" / start / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4
    for line in map(json.loads, lines):
        assert line["train-onpolicy-misc/kl"] >= 0
    checkpoints = sorted(Path(runner.checkpoint_dir(start)).iterdir())
    states = [load_checkpoint(path).model_state_dict for path in checkpoints]
    assert [int(state["observation_moments.count"]) for state in states] == [24, 48, 72, 96]
    assert len({float(state["return_moments.mean"]) for state in states}) == 4


def test_a_run_of_several_workers_can_be_resumed(trained):
    folder, checkpoints, _ = trained
    rest, logs = train(folder, str(checkpoints[1]))
    assert [log["training_steps"] for log in logs] == [72, 96]
    assert [path.name for path in rest] == [path.name for path in checkpoints[2:]]


def test_several_testers_play_the_tasks_of_one(trained, tmp_path):
    checkpoint = str(trained[1][-1])
    results = []
    for testers in ([3], [2, 1]):
        with make_runner(Shared([2, 1], test=testers), tmp_path, mode="test", deterministic_agents=True) as runner:
            results += runner.start_test(checkpoint)
    one, two = results
    assert len(one["tasks"]) == len(two["tasks"]) == 3 * 3
    assert sorted(task["reward"] for task in one["tasks"]) == sorted(task["reward"] for task in two["tasks"])
    assert one["test-metrics/reward"] == pytest.approx(two["test-metrics/reward"])


class OnTwoMachines(Shared):
    """Chooses the worker of each machine as AllenAct's tutorial for several machines does."""

    def machine_params(self, mode="train", **kwargs):
        params = super().machine_params(mode)
        if "machine_id" in kwargs:
            params.set_local_worker_ids([kwargs["machine_id"]])
        return params


@pytest.mark.slow
def test_two_machines_are_one_learner(tmp_path):
    address = f"127.0.0.1:{find_free_port()}"

    def run(machine_id):
        config = OnTwoMachines([2, 1], num_mini_batch=1, update_repeats=1, stage_steps=(48,), metric_interval=24)
        folder = tmp_path / str(machine_id)
        with make_runner(config, folder, machine_id=machine_id, distributed_ip_and_port=address) as runner:
            runner.start_train()

    machines = [multiprocessing.get_context("fork").Process(target=run, args=(index,)) for index in (0, 1)]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join(timeout=120)
        assert machine.exitcode == 0
    steps = {}
    for machine_id in (0, 1):
        (log,) = (tmp_path / str(machine_id)).glob("metrics/Toy/*/metrics.jsonl")
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        steps[machine_id] = [row["train-onpolicy-losses/weights/sum"] for row in rows]
    assert steps[0] == steps[1] != []
