"""Dict actions, chosen one after the other, imitated with teacher forcing and improved with PPO: a whole experiment."""

import json

import pytest

from allenact.algorithms.onpolicy_sync.runner import OnPolicyRunner
from allenact.testing.experiments import ToyExperiment

GROUPS = ("higher", "lower")


class Forced(ToyExperiment):
    """The dict-action copy toy; teacher forcing decays from 1 to 0 over all 512 steps."""

    def __init__(self):
        super().__init__("copy", dict_actions=True, imitate=True, stage_steps=(512,), save_interval=256)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Validation results of a run, results of testing it with the expert, and with itself; and the output folder."""
    folder = tmp_path_factory.mktemp("hierarchical")
    common = {
        "output_dir": folder,
        "loaded_config_src_files": None,
        "seed": 12345,
        "multiprocessing_start_method": "fork",
        "disable_tensorboard": True,
        "disable_config_saving": True,
    }
    with OnPolicyRunner(Forced(), **common) as runner:
        start, valid = runner.start_train(max_sampler_processes_per_worker=1, collect_valid_results=True)
    tests = []
    for expert in (True, False):
        with OnPolicyRunner(Forced(), mode="test", **common) as runner:
            checkpoints = str(folder / "checkpoints" / "Toy" / start)
            tests.append(runner.start_test(checkpoints, max_sampler_processes_per_worker=1, inference_expert=expert))
    lines = (folder / "metrics" / "Toy" / start / "metrics.jsonl").read_text().splitlines()
    return valid, *tests, [json.loads(line) for line in lines]


def test_training_and_validation(results):
    valid, _, _, lines = results
    assert valid[-1]["training_steps"] == 512
    assert len(valid[-1]["tasks"]) == 6
    logs = [line for line in lines if line["mode"] == "train"]
    assert [log["training_steps"] for log in logs] == list(range(32, 513, 32))
    for log in logs:
        for group in GROUPS:
            assert log[f"train-onpolicy-losses/imitation_loss/{group}_cross_entropy"] > 0
        assert log["train-onpolicy-losses/imitation_loss/expert_cross_entropy"] == pytest.approx(
            sum(log[f"train-onpolicy-losses/imitation_loss/{group}_cross_entropy"] for group in GROUPS)
        )
        assert log["train-onpolicy-losses/ppo_loss/entropy"] < 0


def test_the_teacher_gives_way(results):
    logs = [line for line in results[3] if line["mode"] == "train"]
    enforced = [log["train-misc/teacher_ratio/enforced"] for log in logs]
    assert enforced == sorted(enforced, reverse=True)
    assert enforced[0] > 0.9
    assert enforced[-1] < 0.1
    sampled = {tag for log in logs for tag in log if tag.startswith("train-misc/teacher_ratio/sampled")}
    assert sampled == {f"train-misc/teacher_ratio/sampled_{group}" for group in GROUPS}
    early, late = logs[0]["train-metrics/reward"], logs[-1]["train-metrics/reward"]
    assert early > 4, "the expert plays"
    assert late < early, "and later the model, which has seen too little"


def test_the_expert_can_be_tested(results):
    for result in results[1]:
        assert [task["reward"] for task in result["tasks"]] == [5.0] * 6
    assert [result["training_steps"] for result in results[1]] == [256, 512]
    assert results[2][-1]["test-metrics/reward"] < 5, "unlike the model"
