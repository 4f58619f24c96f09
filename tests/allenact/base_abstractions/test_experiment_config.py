"""Machine parameters, and classes whose attributes are frozen."""

import abc
import multiprocessing
import pickle

import pytest
import torch

from allenact.base_abstractions import experiment_config as module
from allenact.base_abstractions.experiment_config import (
    DeviceUnavailableError,
    ExperimentConfig,
    FrozenClassVariables,
    MachineParams,
    UndefinedTasksError,
    split_processes_onto_devices,
)
from allenact.errors import ExperimentConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("nprocesses", "ndevices", "split"),
    [(8, 3, [3, 3, 2]), (4, 4, [1, 1, 1, 1]), (0, 2, [0, 0]), (5, 1, [5])],
)
def test_processes_are_split_evenly(nprocesses, ndevices, split):
    assert split_processes_onto_devices(nprocesses, ndevices) == split


def test_fewer_processes_than_devices_are_refused():
    with pytest.raises(ExperimentConfigError, match="nprocesses=2 for 3 devices"):
        split_processes_onto_devices(2, 3)


def test_one_number_means_one_worker_on_the_cpu():
    params = MachineParams(nprocesses=8)
    assert list(params.nprocesses) == [8]
    assert params.devices == (CPU,)
    assert params.sampler_devices is None
    assert params.local_worker_ids == [0]
    assert params.sensor_preprocessor_graph is None
    assert params.visualizer is None


@pytest.mark.parametrize("devices", [None, [], (), "cpu", -1, CPU, [-1, -1], ["cpu", -1], (CPU, "cpu")])
def test_every_way_to_say_cpu(devices):
    params = MachineParams(nprocesses=[4, 2], devices=devices, sampler_devices=devices)
    assert params.devices == (CPU, CPU)
    assert params.sampler_devices is None if devices is None else params.sampler_devices == (CPU, CPU)
    assert list(params.nprocesses) == [4, 2]


def test_dicts_are_accepted_and_misspelt_keys_are_not():
    params = MachineParams.instance_from({"nprocesses": 3, "devices": [], "visualizer": None})
    assert list(params.nprocesses) == [3]
    assert MachineParams.instance_from(params) is params
    with pytest.raises(ExperimentConfigError, match=r'(?s)no entry "nproceses".*did you mean "nprocesses"'):
        MachineParams.instance_from({"nproceses": 3})
    with pytest.raises(ExperimentConfigError, match="neither a MachineParams nor a dict"):
        MachineParams.instance_from(4)


@pytest.mark.parametrize("nprocesses", [-1, [2, -1], [], "4", 2.5, True, [None]])
def test_impossible_numbers_of_processes(nprocesses):
    with pytest.raises(ExperimentConfigError, match=r"nprocesses=.*\(machine_params\)"):
        MachineParams(nprocesses)


def test_devices_must_match_the_workers():
    with pytest.raises(ExperimentConfigError, match="3 devices for 2 workers"):
        MachineParams([1, 1], devices=["cpu"] * 3)
    with pytest.raises(ExperimentConfigError, match="1 sampler_devices for 2 workers"):
        MachineParams([1, 1], sampler_devices=["cpu"])


def test_a_device_nobody_knows():
    with pytest.raises(ExperimentConfigError, match='"gpu0" is not a device'):
        MachineParams(1, devices="gpu0")


@pytest.mark.parametrize("devices", [100, [100], "cuda:100", torch.device("cuda", 100)])
def test_a_device_that_is_not_there(devices):
    with pytest.raises(DeviceUnavailableError, match=r'no device "cuda:100"') as info:
        MachineParams(1, devices=devices)
    assert isinstance(info.value, RuntimeError)
    assert str(pickle.loads(pickle.dumps(info.value))) == str(info.value)


def test_cpu_and_accelerator_do_not_mix(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert MachineParams([1, 1], devices=[0, 1], sampler_devices=-1).sampler_devices == (CPU, CPU)
    with pytest.raises(ExperimentConfigError, match="CPU and an accelerator"):
        MachineParams([1, 1], devices=[0, -1])


def test_the_former_name_of_devices(capsys):
    assert MachineParams(1, gpu_ids=[-1]).devices == (CPU,)
    assert "gpu_ids of MachineParams is deprecated" in capsys.readouterr().err
    with pytest.raises(ExperimentConfigError, match="devices are given twice"):
        MachineParams(1, devices=[-1], gpu_ids=[-1])


def test_workers_of_several_machines():
    params = MachineParams(nprocesses=[2, 2], devices=["cpu", "cpu"])
    params.devices = params.devices * 2  # what distributed experiments do
    params.nprocesses = params.nprocesses * 2
    params.set_local_worker_ids([2, 3])
    assert params.local_worker_ids == [2, 3]
    assert list(params.nprocesses) == [2, 2, 2, 2]
    with pytest.raises(ExperimentConfigError, match=r"local_worker_ids=\[4\], 4 devices"):
        params.set_local_worker_ids([4])
    assert MachineParams([1, 1, 1], local_worker_ids=[1]).local_worker_ids == [1]


class CountingBuilder:
    """Looks like a Builder, and counts what it builds."""

    class_type = dict

    def __init__(self):
        self.built = 0

    def __call__(self):
        self.built += 1
        return {"number": self.built}


def test_builders_are_called_once_and_late():
    graph, viz = CountingBuilder(), CountingBuilder()
    params = MachineParams(1, sensor_preprocessor_graph=graph, visualizer=viz)
    assert (graph.built, viz.built) == (0, 0)
    assert params.sensor_preprocessor_graph is params.sensor_preprocessor_graph
    assert params.visualizer == {"number": 1}
    assert (graph.built, viz.built) == (1, 1)


def test_a_visualizer_is_replaced_until_it_is_built(capsys):
    params = MachineParams(1)
    params.set_visualizer(CountingBuilder())
    params.set_visualizer(CountingBuilder())
    built = params.visualizer
    params.set_visualizer(CountingBuilder())
    assert params.visualizer is built
    assert "not replaced" in capsys.readouterr().err


class Animal(metaclass=FrozenClassVariables):
    legs = 4

    @abc.abstractmethod
    def sound(self):
        """Says something."""


class Dog(Animal):
    def sound(self):
        return "woof"


@pytest.mark.parametrize("frozen", [Animal, Dog])
def test_class_attributes_are_frozen(frozen):
    with pytest.raises(RuntimeError, match=f'cannot assign the class attribute "legs" of {frozen.__name__}'):
        frozen.legs = 3
    with pytest.raises(RuntimeError, match="wings"):
        frozen.wings = 2
    assert frozen.legs == 4


def test_instances_are_free_and_independent():
    one, other = Dog(), Dog()
    one.legs = 3
    assert (one.legs, other.legs, Dog.legs) == (3, 4, 4)
    with pytest.raises(TypeError, match="sound"):
        Animal()
    assert issubclass(Dog, Animal)  # fills a cache of abc on the class


class Partial(ExperimentConfig):
    SAMPLERS = 8

    @classmethod
    def tag(cls):
        return "partial"


class Complete(Partial):
    """Class, static and instance methods, as experiments mix them."""

    @staticmethod
    def training_pipeline(**kwargs):
        return None

    @classmethod
    def machine_params(cls, mode="train", **kwargs):
        return MachineParams(0 if mode == "valid" else cls.SAMPLERS)

    def create_model(self, **kwargs):
        return torch.nn.Linear(1, self.SAMPLERS)

    @classmethod
    def make_sampler_fn(cls, **kwargs):
        return None


def test_experiments_are_frozen_and_must_be_complete():
    with pytest.raises(TypeError, match="abstract"):
        Partial()
    for frozen in (ExperimentConfig, Partial, Complete):
        with pytest.raises(RuntimeError, match="SAMPLERS"):
            frozen.SAMPLERS = 2
    config = Complete()
    assert list(config.machine_params("valid").nprocesses) == [0]
    for mode in ("train", "valid", "test"):
        with pytest.raises(NotImplementedError, match=f"Complete does not define {mode}_task_sampler_args"):
            getattr(config, f"{mode}_task_sampler_args")(process_ind=0, total_processes=1)
    with pytest.raises(UndefinedTasksError, match=r"return self.valid_task_sampler_args\(...\)"):
        config.test_task_sampler_args(process_ind=0, total_processes=1)


def report(config, queue):
    queue.put((config.SAMPLERS, type(config).SAMPLERS, config.create_model().out_features))


def test_a_changed_instance_keeps_its_values_in_another_process(running_forkserver):
    config = Complete()
    config.SAMPLERS = 3
    context = multiprocessing.get_context("forkserver")
    queue = context.SimpleQueue()
    process = context.Process(target=report, args=(config, queue))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert queue.get() == (3, 8, 3)
    queue.close()


def test_names_experiments_import_from_here():
    from allenact.base_abstractions.preprocessor import SensorPreprocessorGraph
    from allenact.base_abstractions.task import TaskSampler

    assert module.TaskSampler is TaskSampler
    assert module.SensorPreprocessorGraph is SensorPreprocessorGraph
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name
