"""Which back end is chosen, and that a task batch behaves like the other two."""

import copy
import random

import gymnasium as gym
import numpy as np
import pytest
import torch

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import (
    BatchedVectorTasks,
    ProcessVectorTasks,
    SingleProcessVectorSampledTasks,
    make_vector_tasks,
)
from allenact.base_abstractions.sensor import Sensor
from allenact.base_abstractions.task_batch import FinishedEpisode, StepBatch, TaskBatch
from allenact.errors import ExperimentConfigError, TaskError, TaskWorkerError
from allenact.testing.tasks import EndlessRewardTask, PushRightTask, ToyTaskSampler

BOX = PushRightTask.lower_action_space


class LoopBatch(TaskBatch):
    """As simple as a batch can be: a loop over the tasks, which takes actions as arrays."""

    def __init__(self, samplers, num_threads):
        self.samplers = samplers
        self.num_threads = num_threads
        self.description = f"a loop on {num_threads} threads"
        self.tasks = [sampler.next_task() for sampler in samplers]
        self.closed = 0

    def observe(self, active):
        return {"toy": np.stack([self.tasks[i].get_observations()["toy"] for i in active])}

    def step(self, actions, active):
        n = len(active)
        batch = StepBatch({}, np.zeros(n, np.float32), np.zeros(n, bool), np.zeros(n, bool), {}, [], [])
        for position, (index, action) in enumerate(zip(active, actions, strict=True)):
            task = self.tasks[index]
            result = task.step(action.tolist())
            batch.rewards[position], batch.dones[position] = result.reward, result.done
            if result.done:
                batch.episodes.append(FinishedEpisode(position, task.metrics(), self.callback_data(task)))
                batch.truncated[position] = task.was_truncated()
                if task.was_truncated():
                    batch.final_observations[position] = result.observation
                self.tasks[index] = self.samplers[index].next_task()
        batch.observations = self.observe(active)
        return batch

    def callback_data(self, task):
        return None

    def next_tasks(self, active, **kwargs):
        for index in active:
            self.tasks[index] = self.samplers[index].next_task(**kwargs)

    def task(self, index):
        return self.tasks[index]

    def reset(self, active):
        for index in active:
            self.samplers[index].reset()
        self.next_tasks(active)

    def state_dict(self):
        return [sampler.state_dict(task) for sampler, task in zip(self.samplers, self.tasks, strict=True)]

    def load_state_dict(self, states):
        for index, state in enumerate(states):
            if state is not None:
                self.tasks[index] = self.samplers[index].load_state_dict(state)

    def close(self):
        self.closed += 1


class WatchfulBatch(LoopBatch):
    callback_suite = None

    def callback_data(self, task):
        return self.callback_suite.get_observations(env=task.env, task=task) if self.callback_suite else None


class BatchSampler(ToyTaskSampler):
    """Offers a batch for tasks of up to 10 steps."""

    batch_class = LoopBatch

    def __init__(self, **kwargs):
        random.random()  # disturbs the global generator, which must not be seen outside
        super().__init__(PushRightTask, **kwargs)

    @classmethod
    def make_batch(cls, samplers, num_threads):
        return None if any(s.max_steps > 10 for s in samplers) else cls.batch_class(samplers, num_threads)


class WatchedSampler(BatchSampler):
    batch_class = WatchfulBatch


class StepsSensor(Sensor):
    def __init__(self):
        super().__init__("steps", gym.spaces.Discrete(100))

    def get_observation(self, env, task, *args, **kwargs):
        return task.num_steps_taken()


@pytest.fixture(autouse=True)
def _fork(monkeypatch):
    """Fork is quick; what is chosen does not depend on it."""
    import multiprocessing

    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import factory

    monkeypatch.setattr(factory, "worker_context", lambda: multiprocessing.get_context("fork"))


def make(sampler_class=BatchSampler, n=3, *, action_space=BOX, args=None, **kwargs):
    args = [{"seed": i, "max_steps": 4 + i, **(args or {})} for i in range(n)]
    return make_vector_tasks(sampler_class, args, action_space=action_space, **kwargs)


def plain(**kwargs):
    kwargs.pop("mp_ctx")
    return ToyTaskSampler(PushRightTask, **kwargs)


@pytest.mark.parametrize(
    ("sampler_class", "n", "options", "expected"),
    [
        (plain, 1, {}, SingleProcessVectorSampledTasks),
        (plain, 3, {"max_processes": 2}, ProcessVectorTasks),
        (plain, 3, {"max_processes": 1}, SingleProcessVectorSampledTasks),
        (plain, 3, {"max_processes": 1, "backend": "process"}, ProcessVectorTasks),
        (plain, 3, {"backend": "serial"}, SingleProcessVectorSampledTasks),
        (BatchSampler, 1, {}, BatchedVectorTasks),
        (BatchSampler, 3, {}, BatchedVectorTasks),
        (BatchSampler, 3, {"backend": "batched"}, BatchedVectorTasks),
        (BatchSampler, 3, {"backend": "process", "max_processes": 2}, ProcessVectorTasks),
        (BatchSampler, 3, {"backend": "serial"}, SingleProcessVectorSampledTasks),
        (BatchSampler, 3, {"sends_policy": True, "num_threads": 2}, ProcessVectorTasks),
        (BatchSampler, 3, {"sends_policy": True, "num_threads": 1}, BatchedVectorTasks),
        (BatchSampler, 3, {"sends_policy": True, "max_processes": 1}, BatchedVectorTasks),
        (BatchSampler, 1, {"sends_policy": True, "num_threads": 2}, BatchedVectorTasks),
        (BatchSampler, 3, {"sends_policy": True, "num_threads": 2, "backend": "batched"}, BatchedVectorTasks),
        (plain, 3, {"sends_policy": True, "num_threads": 2}, ProcessVectorTasks),
    ],
)
def test_choice(sampler_class, n, options, expected):
    with make(sampler_class, n, **options) as tasks:
        assert type(tasks) is expected
        assert tasks.num_unpaused_tasks == n
        assert tasks.observe()["toy"].shape == (n, 1)


def test_processes_are_not_more_than_cores(monkeypatch):
    from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import factory, process

    for module in (factory, process):
        monkeypatch.setattr(module, "usable_cores", lambda: 2)
    with make(plain, 3) as tasks:
        assert "stepped in 2 worker processes" in tasks.description
    with make(BatchSampler, 3) as tasks:
        assert tasks.description.startswith("a loop on 2 threads;")
    with make(BatchSampler, 3, num_threads=7) as tasks:
        assert tasks.description.startswith("a loop on 7 threads;")
    with make(BatchSampler, 3, max_processes=3, backend="process") as tasks:
        assert "stepped in 3 worker processes" in tasks.description
    for sampler_class, processes in ((BatchSampler, 2), (plain, 3)):  # only a batch needs nothing but a core
        with make(sampler_class, 3, max_processes=3, sends_policy=True) as tasks:
            assert f"stepped in {processes} worker processes" in tasks.description


@pytest.mark.parametrize(
    ("sampler_class", "options", "said"),
    [
        (BatchSampler, {}, "; backend batched, chosen because these samplers offer it"),
        (BatchSampler, {"backend": "serial"}, "; backend serial, as asked"),
        (BatchSampler, {"backend": "process"}, ", in each a loop on 1 threads; backend process, as asked"),
        (
            BatchSampler,
            {"sends_policy": True, "num_threads": 2},
            "; backend process, chosen because each can act with a copy of the policy, on a core of its own",
        ),
        (
            plain,
            {"sends_policy": True, "num_threads": 2},
            "(fork); backend process, not batched because ToyTaskSampler offers no batch",
        ),
        (plain, {"max_processes": 2}, "; backend process, not batched because ToyTaskSampler offers no batch"),
        (
            plain,
            {"max_processes": 1},
            "because there would be one process only; not batched because ToyTaskSampler offers no batch",
        ),
    ],
)
def test_the_description_says_which_backend_and_why(sampler_class, options, said):
    with make(sampler_class, 3, **options) as tasks:
        assert tasks.description.endswith(said)


def test_what_cannot_be_sent_to_processes_stays_here():
    class Local(BatchSampler):
        """Cannot be pickled."""

    with make(Local, sends_policy=True, num_threads=2) as tasks:
        assert type(tasks) is BatchedVectorTasks


def test_a_batch_that_declines_says_so():
    with make(args={"max_steps": 11}, max_processes=2) as tasks:
        assert type(tasks) is ProcessVectorTasks
        assert tasks.description.endswith("not batched because BatchSampler offers no batch for them")
    with pytest.raises(ExperimentConfigError, match="cannot be stepped as a batch: BatchSampler"):
        make(args={"max_steps": 11}, backend="batched")
    with pytest.raises(ExperimentConfigError, match="ToyTaskSampler offers no batch"):
        make(plain, backend="batched")


class CountedSampler(ToyTaskSampler):
    """Leaves a line in a file whenever one is built."""

    def __init__(self, file, **kwargs):
        super().__init__(PushRightTask, **kwargs)
        with open(file, "a") as lines:
            lines.write("built\n")


class DecliningSampler(CountedSampler):
    @classmethod
    def make_batch(cls, samplers, num_threads):
        return LoopBatch(samplers, num_threads) if len(samplers) == 1 else None


@pytest.mark.parametrize(
    ("sampler_class", "options", "built"),
    [
        (CountedSampler, {"backend": "process"}, 4),
        (DecliningSampler, {"backend": "process"}, 4),
        (CountedSampler, {"sends_policy": True, "num_threads": 2}, 5),
        (DecliningSampler, {"sends_policy": True, "num_threads": 2}, 5),
    ],
)
def test_samplers_are_not_built_twice(sampler_class, options, built, tmp_path):
    file = tmp_path / "built"
    with make(sampler_class, 4, args={"file": file}, max_processes=2, **options) as tasks:
        tasks.step_batch(torch.zeros(4, 1))
    assert len(file.read_text().splitlines()) == built
    if sampler_class is DecliningSampler and "sends_policy" in options:  # what one sampler offered, several did not
        assert tasks.description.endswith("not batched because DecliningSampler offers no batch for them")


class DiscreteBatch(LoopBatch):
    """Looks something up with the actions, and observes numbers."""

    def observe(self, active):
        return {"number": np.full(len(active), 1 / 3), "flag": np.ones(len(active), bool)}

    def step(self, actions, active):
        rewards = np.asarray([10.0, 20.0], np.float32)[actions[:, 0]]
        n = len(active)
        return StepBatch(self.observe(active), rewards, np.zeros(n, bool), np.zeros(n, bool), {}, [], [])


class DiscreteSampler(BatchSampler):
    batch_class = DiscreteBatch


def test_types_are_those_of_the_batch():
    space = gym.spaces.Discrete(2)
    steps = []
    for backend in ("batched", "process"):
        with make(DiscreteSampler, 4, action_space=space, backend=backend, max_processes=2) as tasks:
            tasks.observe()
            steps.append(copy.deepcopy(tasks.step_batch(torch.tensor([[0], [1], [1], [0]]))))
    np.testing.assert_array_equal(steps[0].rewards, [10, 20, 20, 10])
    for one, other in ((s.rewards, t.rewards) for s, t in [steps]):
        np.testing.assert_array_equal(one, other)
    for name, leaf in steps[0].observations.items():
        assert steps[1].observations[name].dtype == leaf.dtype
        np.testing.assert_array_equal(steps[1].observations[name], leaf)


def test_only_one_sampler_is_built_to_ask():
    closed = []

    class Plain(ToyTaskSampler):
        def __init__(self, **kwargs):
            super().__init__(PushRightTask, **kwargs)

        def close(self):
            closed.append(self)

    make(Plain, 3, max_processes=2).close()
    assert len(closed) == 1  # in this process; the workers' are closed there


def test_callback_sensors_need_a_batch_that_reads_them():
    with make(BatchSampler, callback_sensors=[StepsSensor()], max_processes=2) as tasks:
        assert type(tasks) is ProcessVectorTasks
        assert "LoopBatch does not read callback sensors" in tasks.description
    with make(BatchSampler, callback_sensors=[StepsSensor()], max_processes=2, backend="process") as tasks:
        assert tasks.description.startswith("stepped in 2 worker processes (fork); backend process"), "without batches"
    with make(WatchedSampler, callback_sensors=[StepsSensor()], sends_policy=True, num_threads=2) as tasks:
        assert type(tasks) is ProcessVectorTasks
        for _ in range(4):
            batch = tasks.step_batch(torch.zeros(3, 1))
        assert [episode.callback_data for episode in batch.episodes] == [{"steps": 4}]
    with make(WatchedSampler, callback_sensors=[StepsSensor()]) as tasks:
        assert type(tasks) is BatchedVectorTasks
        for _ in range(4):
            batch = tasks.step_batch(torch.zeros(3, 1))
        assert [episode.callback_data for episode in batch.episodes] == [{"steps": 4}]
    with make(BatchSampler, callback_sensors=[]) as tasks:
        assert type(tasks) is BatchedVectorTasks


def test_wrong_arguments():
    with pytest.raises(ExperimentConfigError, match="no sampler backend 'fast'"):
        make(backend="fast")
    for backend in ("auto", "batched", "process", "serial"):
        with pytest.raises(ExperimentConfigError, match="no task sampler"):
            make(n=0, backend=backend)


@pytest.mark.parametrize("backend", ["auto", "batched", "process", "serial"])
def test_the_trainers_generators_are_left_alone(backend):
    random.seed(3)
    expected = random.random()
    random.seed(3)
    with make(backend=backend):
        assert random.random() == expected


def play(tasks, steps=12):
    rng = np.random.default_rng(0)
    seen = [copy.deepcopy(tasks.observe())]
    for _ in range(steps):
        actions = torch.from_numpy(rng.uniform(-1, 1, (tasks.num_unpaused_tasks, 1)).astype(np.float32))
        batch = tasks.step_batch(actions)
        seen.append(copy.deepcopy([batch.observations, batch.rewards, batch.dones, batch.truncated, batch.episodes]))
        seen.append(copy.deepcopy(batch.final_observations))
    return seen


def test_batched_equals_serial_and_process():
    all_seen = []
    for backend in ("serial", "process", "batched"):
        with make(n=4, backend=backend, max_processes=2) as tasks:
            seen = [play(tasks)]
            tasks.pause_at(0)
            tasks.pause_at(1)
            assert tasks.attr("max_steps") == [5, 7]
            seen.append(play(tasks))
            tasks.resume_all()
            tasks.set_seeds([7, 8, 9, 10])
            tasks.reset_all()
            seen.append(play(tasks, 3))
            states = copy.deepcopy(tasks.state_dict())
            seen.append(play(tasks))
            assert tasks.load_state_dict([states[0], None, *states[2:]]) == [1]
            seen.append(play(tasks))
            np.testing.assert_equal(
                [observation["toy"] for observation in tasks.next_task(force_advance_scene=True)],
                tasks.observe()["toy"],
            )
            seen.append(tasks.lengths())
            seen.append(tasks.call("num_steps_taken"))
            seen.append(tasks.render("raw_rgb_list"))
            all_seen.append(seen)
    np.testing.assert_equal(all_seen[1], all_seen[0])
    np.testing.assert_equal(all_seen[2], all_seen[0])


class RefusingSampler(BatchSampler):
    """Refuses states of tasks that have begun."""

    def load_state_dict(self, state):
        task = super().load_state_dict(state)
        if task.num_steps_taken():
            raise TaskError("this state is of no use.")
        return task


@pytest.mark.parametrize("backend", ["serial", "process", "batched"])
def test_a_state_that_is_refused_costs_one_task(backend, caplog, capfd):
    with make(RefusingSampler, backend=backend, max_processes=2) as tasks:
        fresh = tasks.state_dict()
        tasks.step_batch(torch.zeros(3, 1))
        used = tasks.state_dict()
        assert tasks.load_state_dict([fresh[0], fresh[1], used[2]]) == [2]
        assert tasks.call("num_steps_taken") == [0, 0, 0]
    said = capfd.readouterr().err if backend == "process" else caplog.text  # the process says so
    assert "Task sampler 2 starts anew: this state is of no use" in said


def test_batches_in_processes_go_back_when_one_is_lost():
    with make(RefusingSampler, n=6, backend="process", max_processes=3, keep_healthy=True) as tasks:
        fresh = tasks.state_dict()
        tasks.step_batch(torch.zeros(6, 1))
        used = tasks.state_dict()
        with pytest.raises(TaskWorkerError, match="worker 1"):
            tasks.call_at(2, "no_such_method")
        restarted, continuing = tasks.restart_lost([fresh[0], used[1], None, None, None, fresh[5]], range(6))
        assert (restarted, continuing) == ([2, 3], [1, 4])
        assert tasks.call("num_steps_taken") == [0, 0, 0, 0, 1, 0]
        assert len(tasks.step_batch(torch.zeros(6, 1)).rewards) == 6


def test_batch_is_closed_once():
    tasks = make()
    tasks.close()
    tasks.close()
    assert tasks.batch.closed == 1
    with pytest.raises(NotImplementedError, match="'step'"):
        make().command("step", [0, 0, 0])


def test_the_models_action_space_rules():
    """A model may see a flat action where the task would rather have said something else."""
    args = [{"task_class": EndlessRewardTask}] * 2
    model_space = gym.spaces.Dict({"a": gym.spaces.Discrete(2), "b": gym.spaces.Box(-1, 1, (2,))})
    actions = []

    class Recorder(EndlessRewardTask):
        def play(self, action):
            actions.append(action)
            return 1.0

    args = [{"task_class": Recorder}] * 2
    with make_vector_tasks(ToyTaskSampler, args, action_space=model_space, backend="serial") as tasks:
        tasks.step_batch(torch.tensor([[1.0, 0.5, 0.25], [0.0, -0.5, -0.25]]))
    assert [dict(action) for action in actions] == [{"a": 1, "b": [0.5, 0.25]}, {"a": 0, "b": [-0.5, -0.25]}]
