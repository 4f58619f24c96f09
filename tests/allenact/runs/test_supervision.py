"""How the runner follows its workers, over real pipes but without processes."""

import contextlib
import multiprocessing
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from allenact.algorithms.onpolicy_sync.tracking import EvaluationStatus, LogPackage
from allenact.errors import TaskError, WorkerError
from allenact.runs import supervision
from allenact.runs.supervision import Validation, evaluate_on, supervise_training
from allenact.runs.worker_processes import (
    Evaluate,
    Failed,
    Finished,
    NotEvaluated,
    Ready,
    WorkerProcess,
)


class FakeWorker(WorkerProcess):
    """A worker whose other end of the pipe is held by the test."""

    def __init__(self, name="training", exit_code=None):
        self.name, self.finished, self.stops = name, False, 0
        self.connection, self.end = multiprocessing.Pipe()
        self.process = SimpleNamespace(
            join=lambda timeout=None: None, exitcode=exit_code, is_alive=lambda: False, pid=None
        )

    def says(self, *messages):
        for message in messages:
            self.end.send(message)
        return self

    def request_stop(self):
        self.stops += 1


class FakeValidator(FakeWorker):
    """Evaluates in a thread; holds the first result back until `may_answer`."""

    def __init__(self, fails_on=None, gone=None):
        super().__init__("validation")
        self.asked, self.fails_on, self.gone, self.may_answer = [], fails_on, gone, lambda: True
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(EOFError, OSError):  # the test is over
            self.end.send(Ready())
            while True:
                self._answer(self.end.recv())

    def _answer(self, request):
        assert isinstance(request, Evaluate)
        self.asked.append(request.checkpoint)
        while not self.may_answer():
            time.sleep(0.005)
        if request.checkpoint == self.fails_on:
            self.end.send(Failed(TaskError("the task is impossible.")))
        elif request.checkpoint == self.gone:
            self.end.send(NotEvaluated("it was removed"))
        else:
            self.end.send(package("valid", int(request.checkpoint)))


@pytest.fixture
def workers():
    """Makes fake workers and closes their pipes in the end."""
    made = []

    def make(kind=FakeWorker, **kwargs):
        made.append(kind(**kwargs))
        return made[-1]

    yield make
    for worker in made:
        worker.connection.close()
        worker.end.close()


def package(mode="train", steps=64, **more):
    return LogPackage(mode=mode, training_steps=steps, storage_experiences={}, **more)


def told(logs):
    return [[(entry.mode, entry.training_steps) for entry in packages] for packages in logs]


def never():
    return False


# Training


def test_what_a_trainer_says_is_passed_on_in_order(workers):
    trainer = workers().says(Ready(), package(steps=32), Path("32"), package(steps=64), Finished(True))
    assert told(supervise_training([trainer], None, never)) == [[("train", 32)], [("train", 64)]]
    assert trainer.finished


def test_a_log_waits_for_every_trainer(workers):
    first = workers().says(package(steps=32), package(steps=64), Finished(True))
    second = workers()
    logs = supervise_training([first, second], None, never)
    threading.Timer(0.2, second.says, [package(steps=32), package(steps=64), Finished(True)]).start()
    assert told(logs) == [[("train", 32)] * 2, [("train", 64)] * 2]


def test_only_the_newest_checkpoint_that_waits_is_validated(workers):
    trainer = workers().says(*(Path(str(step)) for step in (32, 64, 96, 128)), Finished(True))
    validator = workers(FakeValidator)
    validator.may_answer = lambda: not trainer.connection.poll()  # when all checkpoints have been announced
    logs = supervise_training([trainer], Validation(lambda: validator), never)
    assert told(logs) == [[("valid", 32)], [("valid", 128)]]
    assert validator.asked == ["32", "128"]


def test_every_checkpoint_is_validated_if_there_is_time(workers):
    trainer, validator = workers(), workers(FakeValidator)
    logs = supervise_training([trainer], Validation(lambda: validator), never)
    seen = []
    for step in (32, 64, 96):
        trainer.says(Path(str(step)))
        seen.append(next(logs))
    trainer.says(Finished(True))
    assert told([*seen, *logs]) == [[("valid", 32)], [("valid", 64)], [("valid", 96)]]


def test_the_last_checkpoint_is_validated_after_training_has_ended(workers):
    trainer = workers().says(package(steps=64), Path("64"), Finished(True))
    validator = workers(FakeValidator)
    begin = time.monotonic()
    validator.may_answer = lambda: time.monotonic() > begin + 0.3
    logs = supervise_training([trainer], Validation(lambda: validator), never)
    assert told(logs) == [[("train", 64)], [("valid", 64)]]
    assert time.monotonic() > begin + 0.3


def test_a_run_without_checkpoints_ends_although_validation_is_wanted(workers):
    trainer = workers().says(package(steps=64), Finished(True))
    logs = supervise_training([trainer], Validation(lambda: workers(FakeValidator)), never)
    assert told(logs) == [[("train", 64)]]


def test_a_failure_is_raised_as_it_was(workers):
    trainer = workers().says(package(steps=32), Failed(TaskError("the task is impossible.")), package(steps=64))
    logs = supervise_training([trainer], None, never)
    assert told([next(logs)]) == [[("train", 32)]]
    with pytest.raises(TaskError, match="the task is impossible"):
        next(logs)


def test_validation_starts_once_a_trainer_is_ready(workers):
    trainer, started = workers().says(package(steps=32)), []
    validation = Validation(lambda: started.append(workers(FakeValidator)) or started[-1])
    logs = supervise_training([trainer], validation, never)
    next(logs)
    assert not started, "training has not begun"
    trainer.says(Ready(), package(steps=64))
    next(logs)
    assert len(started) == 1
    trainer.says(Path("64"))
    assert told([next(logs)]) == [[("valid", 64)]]
    trainer.says(Finished(True))
    assert told(logs) == []
    assert len(started) == 1


def test_a_failing_validation_ends_the_run(workers):
    trainer = workers().says(Path("32"))  # and would go on for ever
    validator = workers(FakeValidator, fails_on="32")
    with pytest.raises(TaskError, match="the task is impossible"):
        list(supervise_training([trainer], Validation(lambda: validator), never))


@pytest.mark.parametrize(("exit_code", "said"), [(-9, "-9.*SIGKILL"), (3, "exit code 3"), (0, "exit code 0")])
def test_a_worker_that_dies_without_a_word(exit_code, said, workers):
    trainer = workers(exit_code=exit_code).says(package(steps=32))
    trainer.end.close()
    logs = supervise_training([trainer], None, never)
    next(logs)
    with pytest.raises(WorkerError, match=said) as error:
        next(logs)
    assert "training process died" in str(error.value)


def test_a_validator_that_dies_without_a_word_ends_the_run(workers):
    trainer = workers().says(Path("32"))
    validator = workers(name="validation", exit_code=-11)
    validator.end.close()
    with pytest.raises(WorkerError, match="validation process died"):
        list(supervise_training([trainer], Validation(lambda: validator), never))


def test_a_signal_for_all_processes_is_no_failure_of_validation(workers):
    trainer = workers().says(Path("32"), Finished(False))
    validator = workers(name="validation", exit_code=0)
    validator.end.close()
    asked = iter([False, False, True])  # the runner hears of it last
    logs = supervise_training([trainer], Validation(lambda: validator), lambda: next(asked, True))
    assert told(logs) == []


@pytest.mark.faults(
    "validator hangs", "killed at the deadline, which follows from its earlier evaluations", "that validation"
)
def test_a_deadline_for_evaluations(workers, monkeypatch):
    monkeypatch.setattr(supervision, "EVALUATION_DEADLINE_S", 0.2)
    validator, killed = workers(FakeValidator), []
    validator.process.kill = lambda: killed.append(True)
    trainer = workers().says(Path("32"))
    logs = supervise_training([trainer], Validation(lambda: validator), never)
    begin = time.monotonic()
    validator.may_answer = lambda: time.monotonic() > begin + 0.1
    assert told([next(logs)]) == [[("valid", 32)]]
    validator.may_answer = never
    trainer.says(Path("64"))
    with pytest.raises(WorkerError, match="has not answered for"):
        next(logs)
    assert killed
    assert time.monotonic() - begin > 1.0, "ten times longer than it ever took"
    validator.end.close()
    validator.may_answer = lambda: True  # its thread ends


def test_a_checkpoint_that_is_gone_is_passed_over(workers, caplog):
    trainer = workers().says(Path("32"))
    validator = workers(FakeValidator, gone="32")
    logs = supervise_training([trainer], Validation(lambda: validator), never)
    trainer.says(package(steps=64))
    assert told([next(logs)]) == [[("train", 64)]]
    trainer.says(Path("64"), Finished(True))
    assert told(logs) == [[("valid", 64)]]
    assert "A checkpoint is not validated: it was removed" in caplog.text


@pytest.mark.parametrize("failure", ["dies", "fails_on", "hangs"])
def test_a_validator_that_fails_is_replaced_if_asked_to(failure, workers, monkeypatch, caplog):
    monkeypatch.setattr(supervision, "EVALUATION_DEADLINE_S", 0.2)
    trainer = workers().says(Path("32"))
    first = workers(FakeValidator, fails_on="32") if failure == "fails_on" else workers(name="validation")
    if failure == "dies":
        first.end.close()
    first.process.kill = lambda: None
    both = [first, workers(FakeValidator)]
    begun = iter(both)
    logs = supervise_training([trainer], Validation(lambda: next(begun), replaces_worker=True), never)
    (result,) = next(logs)
    assert (result.mode, result.training_steps) == ("valid", 32)
    assert result.scalars["valid-misc/validation_restarts"] == [1.0, 1.0]
    assert "Validation is restarted" in caplog.text
    trainer.says(Finished(True))
    assert told(logs) == []


def test_a_checkpoint_that_fails_twice_ends_the_run(workers):
    trainer = workers().says(Path("32"))
    validators = iter([workers(FakeValidator, fails_on="32") for _ in range(3)])
    with pytest.raises(TaskError, match="the task is impossible"):
        list(supervise_training([trainer], Validation(lambda: next(validators), replaces_worker=True), never))
    assert len([*validators]) == 1


def test_too_many_failures_of_validation_end_the_run(workers, monkeypatch):
    monkeypatch.setattr(supervision, "MOST_REPLACED_VALIDATORS", 2)
    trainer, made = workers(), []

    def start():
        made.append(workers(FakeValidator, fails_on=str(32 * (len(made) + 1))))
        return made[-1]

    logs = supervise_training([trainer], Validation(start, replaces_worker=True), never)
    for step in (32, 64):
        trainer.says(Path(str(step)))
        assert told([next(logs)]) == [[("valid", step)]]
    trainer.says(Path("96"))
    with pytest.raises(TaskError, match="the task is impossible"):
        next(logs)


def test_a_request_to_stop_reaches_every_trainer_once(workers):
    trainers = [workers(), workers()]
    validator = workers(FakeValidator)
    stop = threading.Event()
    logs = supervise_training(trainers, Validation(lambda: validator), stop.is_set)
    trainers[0].says(package(steps=32))
    trainers[1].says(package(steps=32))
    next(logs)
    stop.set()

    def leave():
        while not all(trainer.stops for trainer in trainers):
            time.sleep(0.005)
        trainers[0].says(package(steps=64), Path("64"), Finished(False))
        trainers[1].end.close()  # ended before it could say so

    leaving = threading.Thread(target=leave)
    leaving.start()
    assert told(logs) == []
    leaving.join()
    assert [trainer.stops for trainer in trainers] == [1, 1]
    assert validator.asked == [], "nothing is validated any more"


# Tests


def test_every_tester_plays_its_share(workers):
    testers = [workers(name=f"test {index}").says(package("test", 64, metrics=[{"i": index}])) for index in range(2)]
    packages = evaluate_on(testers, "a.pt", never)
    assert [entry.metrics for entry in packages] == [[{"i": 0}], [{"i": 1}]]
    assert [tester.end.recv() for tester in testers] == [Evaluate("a.pt")] * 2


def test_what_testers_say_on_the_way_is_added_up(workers):
    testers = [workers(), workers()]
    testers[0].says(EvaluationStatus(1, 4, 30, 2.0, {"reward": 5.0}), package("test", 64))
    testers[1].says(EvaluationStatus(3, 4, 50, 3.0, {"reward": 1.0, "success": 1.0}), package("test", 64))
    told = []
    progress = SimpleNamespace(begin_checkpoint=told.append, update_status=told.append, refresh=lambda: None)
    evaluate_on(testers, "a.pt", never, progress)
    assert told[0] == "a.pt"
    assert told[-1] == EvaluationStatus(4, 8, 80, 3.0, {"reward": 2.0, "success": 1.0})
    assert told[-1].seconds_left == 3.0


def test_a_failing_tester_ends_the_test(workers):
    testers = [workers().says(package("test")), workers().says(Failed(TaskError("the task is impossible.")))]
    with pytest.raises(TaskError, match="impossible"):
        evaluate_on(testers, "a.pt", never)


def test_a_test_can_be_stopped(workers):
    with pytest.raises(KeyboardInterrupt):
        evaluate_on([workers()], "a.pt", lambda: True)


def test_a_signal_to_the_whole_group_stops_a_test(workers):
    """The worker is gone before it is asked to stop; that is no failure."""
    tester = workers(exit_code=255)
    answers = iter([False])  # when the wait begins

    def stopped():
        tester.end.close()
        return next(answers, True)

    with pytest.raises(KeyboardInterrupt):
        evaluate_on([tester], "a.pt", stopped)


def test_a_tester_that_dies_by_itself_ends_the_test(workers):
    tester = workers(exit_code=-9)
    tester.end.close()
    with pytest.raises(WorkerError, match="died"):
        evaluate_on([tester], "a.pt", never)
