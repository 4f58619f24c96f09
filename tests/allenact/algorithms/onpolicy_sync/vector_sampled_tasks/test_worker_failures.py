"""Failures in sampler processes: named, with the original traceback once, and nothing left behind (see conftest)."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import resource_tracker

import psutil
import pytest
import torch

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import VectorSampledTasks, worker_pool
from allenact.errors import ExperimentConfigError, TaskWorkerError, UnknownEnvironmentError
from allenact.testing.tasks import CopyTask, ToyTaskSampler
from allenact.utils.worker_startup import stop_signals_blocked


def no_problem():
    pass


def raise_error():
    raise ZeroDivisionError("the wheel came off")


def raise_own_error():
    raise UnknownEnvironmentError('no gym environment is called "Antv-2".')


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    os._exit(3)


def hang():
    time.sleep(60)


def hang_stubbornly():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang()


class TroubledTask(CopyTask):
    """Makes its sampler's trouble in the step or in the metrics."""

    def _step(self, action):
        self.env.trouble("step")
        return super()._step(action)

    def metrics(self):
        self.env.trouble("metrics")
        return {**super().metrics(), "unsendable": self.env.unsendable}


class TroubledSampler(ToyTaskSampler):
    """Calls `problem` where `place` says."""

    def __init__(self, place="", problem=no_problem, unsendable=None, mp_ctx=None, **kwargs):
        self.place, self.problem = place, problem
        self.trouble("constructor")
        super().__init__(TroubledTask, max_steps=4, **kwargs)
        self.world.trouble = self.trouble
        self.world.unsendable = unsendable

    def trouble(self, place):
        if place == self.place:
            self.problem()

    def next_task(self, force_advance_scene=False):
        if force_advance_scene:
            self.trouble("next_task")
        return super().next_task(force_advance_scene)

    def reset(self):
        self.trouble("reset")
        super().reset()

    def set_seed(self, seed):
        self.trouble("set_seed")
        super().set_seed(seed)

    def close(self):
        self.trouble("close")


def start(place="", problem=no_problem, n=4, processes=2, **kwargs):
    """Starts samplers in worker processes; the one before the last has the problem."""
    args = [{} for _ in range(n)]
    args[n - 2] = {"place": place, "problem": problem}
    kwargs = {"multiprocessing_start_method": "fork", "should_log": False, **kwargs}
    return VectorSampledTasks(TroubledSampler, args, max_processes=processes, **kwargs)


def use(tasks):
    """Calls everything that can meet trouble."""
    tasks.observe()
    for _ in range(4):
        tasks.step_batch(torch.zeros(tasks.num_unpaused_tasks, 1))
    tasks.next_task(force_advance_scene=True)
    tasks.set_seeds([1] * tasks.num_unpaused_tasks)
    tasks.reset_all()


def pid_of(tasks, worker):
    return tasks._pool._processes[worker].pid


PLACES = {
    "step": "step_shared",
    "metrics": "step_shared",
    "next_task": "run_commands",
    "reset": "run_commands",
}


@pytest.mark.faults(
    "task or sampler raises in a sampler process", "its traceback, once; the run stops", "the current rollout"
)
@pytest.mark.parametrize("place", PLACES)
def test_exceptions_are_shown_once(place):
    tasks = start(place, raise_error)
    with pytest.raises(TaskWorkerError) as caught:
        use(tasks)
    text = str(caught.value)
    assert f'worker 1 (samplers 2 to 3) raised while answering "{PLACES[place]}"' in text
    assert text.count("Traceback (most recent call last)") == 1
    assert text.count("ZeroDivisionError: the wheel came off") == 1
    assert f'trouble("{place}")' in text  # the line of the task or sampler
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert tasks.is_closed
    with pytest.raises(TaskWorkerError, match="have been closed"):
        tasks.observe()


@pytest.mark.faults("sampler raises while it is made", "its traceback; nothing has started", "nothing")
def test_exception_in_the_constructor():
    with pytest.raises(TaskWorkerError, match=r'worker 1 .* raised while answering "start"') as caught:
        start("constructor", raise_error)
    assert "the wheel came off" in str(caught.value)


def test_errors_that_explain_themselves_stay_themselves():
    with pytest.raises(UnknownEnvironmentError, match="Antv-2") as caught:
        start("constructor", raise_own_error)
    assert "In worker 1 (samplers 2 to 3)" in caught.value.__notes__[0]


def test_answers_that_cannot_be_pickled():
    tasks = VectorSampledTasks(
        TroubledSampler, [{"unsendable": lambda: None}], multiprocessing_start_method="fork", should_log=False
    )
    with pytest.raises(TaskWorkerError, match="pickle"):
        use(tasks)


@pytest.mark.faults("sampler process dies", "named with exit code and method; the run stops", "the current rollout")
@pytest.mark.parametrize("problem", [kill_itself, leave])
@pytest.mark.parametrize("place", ["constructor", "step"])
def test_death(place, problem):
    code = {kill_itself: -9, leave: 3}[problem]
    method = {"constructor": "start", "step": "step_shared"}[place]
    with pytest.raises(TaskWorkerError, match=f'samplers 2 to 3. died while answering "{method}"') as caught:
        use(start(place, problem))
    assert f"exit code {code}" in str(caught.value)
    assert caught.value.__suppress_context__


def give_up():
    os._exit(1)


def test_a_process_that_ends_at_once_is_told_of_the_guard():
    with pytest.raises(TaskWorkerError, match=r"if __name__ == .__main__."):
        start("constructor", give_up)


def test_death_between_two_steps():
    tasks = start()
    tasks.observe()
    os.kill(pid_of(tasks, 0), signal.SIGKILL)
    with pytest.raises(TaskWorkerError, match=r"worker 0 \(samplers 0 to 1\) died") as caught:
        use(tasks)
    assert "exit code -9, killed by a signal" in str(caught.value)


@pytest.mark.faults("sampler process hangs", "killed at the deadline; says where it hung", "the current rollout")
@pytest.mark.parametrize("problem", [hang, hang_stubbornly])
def test_a_worker_that_hangs(problem, capfd):
    tasks = start("step", problem, read_timeout=0.5)
    begin = time.monotonic()
    with pytest.raises(TaskWorkerError, match=r'samplers 2 to 3\) did not answer "step_shared" in time') as caught:
        use(tasks)
    assert time.monotonic() - begin < 3.0
    assert "read_timeout=0.5 seconds" in str(caught.value)
    assert "in hang" in capfd.readouterr().err  # where it hangs


def test_a_worker_that_hangs_at_the_start():
    with pytest.raises(TaskWorkerError, match="times 5 for the first reply"):
        start("constructor", hang, read_timeout=0.05)


def test_the_first_reply_may_take_longer():
    with start("constructor", lambda: time.sleep(0.6), read_timeout=0.3) as tasks:
        assert tasks.num_unpaused_tasks == 4


def test_no_timeout():
    with start("next_task", lambda: time.sleep(0.2), read_timeout=None) as tasks:
        use(tasks)


@pytest.mark.parametrize("problem", [hang, hang_stubbornly])
def test_workers_that_hang_while_closing_are_killed(problem, monkeypatch):
    monkeypatch.setattr(worker_pool, "CLOSE_TIMEOUT_S", 0.1)
    tasks = start("close", problem)
    begin = time.monotonic()
    tasks.close()
    assert time.monotonic() - begin < 1.0


def test_interrupting_the_trainer_does_not_hurt_the_workers():
    with start() as tasks:
        tasks.observe()
        os.kill(pid_of(tasks, 0), signal.SIGINT)  # Ctrl-C reaches the whole process group
        use(tasks)


def test_workers_start_with_the_stop_signals_blocked(monkeypatch):
    """What the standard library starts beside the first worker unblocks them: it has to be there before."""
    tracker = resource_tracker.ResourceTracker()
    monkeypatch.setattr(resource_tracker, "ensure_running", tracker.ensure_running)
    try:
        worker_pool.prepared(multiprocessing.get_context("spawn"))
        with stop_signals_blocked():
            resource_tracker.ensure_running()  # as whatever starts a process does
            assert {signal.SIGINT, signal.SIGTERM} <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        tracker._stop()


def test_interrupt_while_waiting():
    """Ctrl-C during a step: the samplers can be closed, and cannot be used with replies still under way."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    tasks = start("step", lambda: time.sleep(0.5))
    tasks.observe()
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            tasks.step_batch(torch.zeros(4, 1))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    with pytest.raises(RuntimeError, match="interrupted"):
        tasks.observe()
    tasks.close()


def test_what_cannot_be_pickled_is_said_before_anything_starts():
    with pytest.raises(ExperimentConfigError, match="cannot be pickled"):
        VectorSampledTasks(lambda **kwargs: None, [{}], multiprocessing_start_method="spawn", should_log=False)


KILLED_TRAINER = """
import os, signal, sys
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks import VectorSampledTasks
from allenact.testing.tasks import CopyTask, ToyTaskSampler

if __name__ == "__main__":
    args = [{"task_class": CopyTask}] * 3
    tasks = [VectorSampledTasks(ToyTaskSampler, args, multiprocessing_start_method="fork", max_processes=2,
                                should_log=False) for _ in range(2)]
    print(*[process.pid for t in tasks for process in t._pool._processes], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.faults("trainer killed (SIGKILL)", "its sampler processes end", "what was not saved yet")
def test_workers_end_with_a_killed_trainer():
    """Forked workers inherit each other's pipes, which must not keep them alive."""
    trainer = subprocess.run([sys.executable, "-c", KILLED_TRAINER], capture_output=True, text=True, timeout=60)
    pids = [int(pid) for pid in trainer.stdout.split()]
    assert len(pids) == 4, trainer.stderr
    deadline = time.monotonic() + 5.0
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in pids if _runs(pid)]


def _runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# One worker is lost, the others live on


class Mortal(TroubledSampler):
    """Has its trouble in the step as long as a file is not there, which the first trouble creates."""

    def __init__(self, mark="", saved=True, **kwargs):
        self.mark, self.saved = mark, saved
        super().__init__(**kwargs)

    def trouble(self, place):
        if self.mark and not os.path.exists(self.mark) and place == self.place and self.tasks_drawn == 2:
            open(self.mark, "w").close()
            self.problem()

    def state_dict(self, task):
        return super().state_dict(task) if self.saved else None


def steps(tasks, count):
    """What a policy sees that always acts the same."""
    rows = []
    for _ in range(count):
        batch = tasks.step_batch(torch.zeros(tasks.num_unpaused_tasks, 1))
        rows.append((batch.observations["toy"].copy(), batch.rewards.copy(), batch.dones.copy()))
    return rows


@pytest.fixture
def mortal(tmp_path):
    """Makes six samplers in three workers; the last sampler of the second worker has a problem in its second task."""
    made = []

    def make(problem=no_problem, saved=True, **kwargs):
        args = [{"seed": index, "saved": saved} for index in range(6)]
        args[3] = {"seed": 3, "saved": saved, "place": "step", "problem": problem, "mark": str(tmp_path / "mark")}
        options = {"multiprocessing_start_method": "fork", "should_log": False, "max_processes": 3, **kwargs}
        made.append(VectorSampledTasks(Mortal, args, keep_healthy=True, **options))
        return made[-1]

    yield make
    for tasks in made:
        tasks.close()


@pytest.mark.faults(
    "one of three sampler processes is lost", "replaced; the others go back to where the rollout began", "its episodes"
)
@pytest.mark.parametrize("problem", [kill_itself, raise_error, hang], ids=lambda problem: problem.__name__)
def test_only_the_lost_worker_is_replaced(problem, mortal):
    healthy, tasks = mortal(), mortal(problem, read_timeout=1.0)
    pids = [pid_of(tasks, worker) for worker in range(3)]
    for each in (healthy, tasks):
        steps(each, 2)
    states = tasks.state_dict()
    with pytest.raises(TaskWorkerError, match=r"worker 1 \(samplers 2 to 3\)"):
        steps(tasks, 8)
    assert not tasks.is_closed
    with pytest.raises(TaskWorkerError, match=r"worker 1 .*failed"):
        tasks.observe()
    assert tasks.restart_lost(states, range(100, 106)) == ([2, 3], [])
    assert [pid == pid_of(tasks, worker) for worker, pid in enumerate(pids)] == [True, False, True]
    tasks.observe()
    for expected, seen in zip(steps(healthy, 8), steps(tasks, 8), strict=True):
        for a, b in zip(expected, seen, strict=True):
            assert (a[[0, 1, 4, 5]] == b[[0, 1, 4, 5]]).all()


def test_what_cannot_go_back_plays_on(mortal):
    healthy, tasks = mortal(saved=False), mortal(kill_itself, saved=False)
    for each in (healthy, tasks):
        steps(each, 2)
    with pytest.raises(TaskWorkerError):
        steps(tasks, 8)
    assert tasks.restart_lost([None] * 6, range(6)) == ([2, 3], [0, 1, 4, 5])
    steps(healthy, 2)  # as far as the others came
    others = [0, 1, 4, 5]
    assert (tasks.observe()["toy"][others] == healthy.observe()["toy"][others]).all()
    assert tasks.call("num_steps_taken") == [1, 1, 0, 0, 1, 1]


def test_two_workers_can_be_lost_at_once(mortal):
    tasks = mortal()
    states = tasks.state_dict()
    for worker in (0, 2):
        os.kill(pid_of(tasks, worker), signal.SIGKILL)
    with pytest.raises(TaskWorkerError):
        steps(tasks, 1)
    assert tasks.restart_lost(states, range(6)) == ([0, 1, 4, 5], [])
    assert len(tasks.observe()["toy"]) == 6


def test_a_replacement_that_fails_ends_all(mortal, monkeypatch):
    tasks = mortal()
    os.kill(pid_of(tasks, 0), signal.SIGKILL)
    with pytest.raises(TaskWorkerError):
        steps(tasks, 1)
    monkeypatch.setattr(Mortal, "__init__", raise_error)
    with pytest.raises(TaskWorkerError, match="raised while answering"):
        tasks.restart_lost([None] * 6, range(6))
    assert tasks.is_closed
