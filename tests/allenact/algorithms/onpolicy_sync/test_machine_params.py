"""Workers and samplers of each machine and mode."""

import pytest

from allenact.algorithms.onpolicy_sync.machine_params import machine_params_of
from allenact.base_abstractions.experiment_config import MachineParams
from allenact.errors import ExperimentConfigError
from allenact.testing.experiments import ToyExperiment


class OnTwoMachines(ToyExperiment):
    """Chooses the workers of a machine as AllenAct's tutorial for several machines does."""

    def machine_params(self, mode="train", **kwargs):
        params = MachineParams(nprocesses=[2] * 4 if mode == "train" else 1)
        if "machine_id" in kwargs:
            assert mode == "train"
            params.set_local_worker_ids([2 * kwargs["machine_id"], 2 * kwargs["machine_id"] + 1])
        return params


def test_each_machine_is_told_which_one_it_is():
    assert [machine_params_of(OnTwoMachines(), "train", index).local_worker_ids for index in (0, 1)] == [[0, 1], [2, 3]]
    assert machine_params_of(OnTwoMachines(), "train").local_worker_ids == [0, 1, 2, 3]
    assert machine_params_of(OnTwoMachines(), "test", 1).local_worker_ids == [0]


def test_experiments_for_one_machine_need_not_know_of_others():
    class ForOne(ToyExperiment):
        def machine_params(self, mode="train"):
            return {"nprocesses": 3}

    assert list(machine_params_of(ForOne(), "train", 0).nprocesses) == [3]
    with pytest.raises(ExperimentConfigError, match=r"for one machine only.*\n.*--machine_id 1, ForOne"):
        machine_params_of(ForOne(), "train", 1)
