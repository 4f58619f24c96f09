"""`--resume`: an interrupted run, resumed, leaves the files of one that was never interrupted."""

import json
import os
import signal

import pytest

from allenact.algorithms.onpolicy_sync.checkpointing import CheckpointStore, TrainingState, load_checkpoint
from allenact.callbacks.csv_files import CsvFiles
from allenact.errors import OutputDirectoryError, WorkerError
from allenact.runs.log_truncation import truncate_logs
from allenact.runs.resume_point import ResumePoint, find_resume_point
from allenact.runs.run_directory import RunDirectory, RunLock, SaveDirFormat
from allenact.testing.experiments import ToyExperiment
from allenact.testing.tasks import ToyTaskSampler

TIMES = ("approx_", "time_share_", "_seconds", "_time")


class DeadlySampler(ToyTaskSampler):
    """Kills the process that trains, once, when its ninth task is drawn."""

    def __init__(self, *args, mark, **kwargs):
        super().__init__(*args, **kwargs)
        self.mark = mark

    def next_task(self, force_advance_scene=False):
        if self.mark is not None and self.max_tasks is None and self.tasks_drawn == 8 and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().next_task(force_advance_scene)


class DeadlyToy(ToyExperiment):
    """Kills the process that trains, once, in the fifth rollout of eight."""

    def __init__(self, mark=None, **kwargs):
        super().__init__(**{"task": "copy", "stage_steps": (128, 128), **kwargs})
        self.mark = mark

    def make_sampler_fn(self, **kwargs):
        return DeadlySampler(self.task_class, mark=self.mark, **kwargs)


def is_time(tag):
    return any(part in tag for part in TIMES)


def metrics_of(folder, start_time):
    """Every line of a run's metrics, without times; validation comes whenever it is done, so by itself."""
    lines = (folder / "metrics" / "Toy" / start_time / "metrics.jsonl").read_text().splitlines()
    rows = [{tag: value for tag, value in json.loads(line).items() if not is_time(tag)} for line in lines]
    return [[row for row in rows if row["mode"] == mode] for mode in ("train", "valid")]


def scalars_of(folder, start_time):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tb" / "Toy" / start_time))
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not is_time(tag)]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in sorted(tags)}


def newest_state(folder, start_time):
    path = max((folder / "checkpoints" / "Toy" / start_time).iterdir(), key=lambda path: path.name[-15:])
    return vars(load_checkpoint(path))


def only_validated(valid, steps):
    return [row for row in valid if row["training_steps"] in steps]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, start):
    folder = tmp_path_factory.mktemp("whole")
    return folder, start(DeadlyToy(), folder)


@pytest.mark.slow
@pytest.mark.faults("trainer killed (SIGKILL), then --resume", "goes on in the same folders", "nothing")
@pytest.mark.parametrize("damage", [None, "newest checkpoint truncated"])
def test_a_run_whose_trainer_was_killed(damage, whole, tmp_path, same_state, start):
    mark = tmp_path / "mark"
    with pytest.raises(WorkerError, match="SIGKILL"):
        start(DeadlyToy(mark), tmp_path)
    (begun,) = os.listdir(tmp_path / "checkpoints" / "Toy")
    checkpoints = tmp_path / "checkpoints" / "Toy" / begun
    newest = max(checkpoints.iterdir())
    assert "000128" in newest.name
    if damage:
        os.truncate(newest, 500)
    resumed = start(DeadlyToy(mark), tmp_path, resume=True)

    assert resumed == begun, "the same folders"
    assert os.listdir(tmp_path / "checkpoints" / "Toy") == [begun]
    train, valid = metrics_of(tmp_path, begun)
    expected_train, expected_valid = metrics_of(*whole)
    assert train == expected_train
    assert [row["training_steps"] for row in valid] == sorted({row["training_steps"] for row in valid})
    both = {row["training_steps"] for row in valid} & {row["training_steps"] for row in expected_valid}
    assert max(both) == 256
    assert only_validated(valid, both) == only_validated(expected_valid, both)
    scalars, expected = scalars_of(tmp_path, begun), scalars_of(*whole)
    assert scalars.keys() == expected.keys()
    for tag, points in scalars.items():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), f"duplicate points of {tag}"
        if tag.startswith("train-"):
            assert points == expected[tag]
    same_state(newest_state(tmp_path, begun), newest_state(*whole))


@pytest.mark.slow
@pytest.mark.faults("--resume without a run, and of a complete one", "starts; ends at once", "nothing")
def test_nothing_to_resume(tmp_path, caplog, start):
    with caplog.at_level("INFO", logger="allenact"):
        begun = start(ToyExperiment(stage_steps=(64,)), tmp_path, resume=True)
    assert "--resume: no run of Toy of seed 3" in caplog.text
    assert newest_state(tmp_path, begun)["total_steps"] == 64
    caplog.clear()
    with caplog.at_level("INFO", logger="allenact"):
        assert start(ToyExperiment(stage_steps=(64,)), tmp_path, resume=True) == begun
    assert "the run of" in caplog.text
    assert [row["training_steps"] for row in metrics_of(tmp_path, begun)[1]] == [64]


@pytest.mark.slow
@pytest.mark.faults("--keep_checkpoints 2", "keeps the newest two and the best", "the other checkpoints, as asked")
def test_old_checkpoints_are_removed_but_for_the_best(tmp_path, start):
    config = DeadlyToy(save_interval=32, num_eval_tasks=5)
    begun = start(config, tmp_path, keep_checkpoints=2)
    left = {load_checkpoint(path).total_steps for path in (tmp_path / "checkpoints" / "Toy" / begun).iterdir()}
    valid = metrics_of(tmp_path, begun)[1]
    best = max((row["valid-metrics/reward"], row["training_steps"]) for row in valid)[1]
    assert left == {224, 256, best}


# Which run, and which of its checkpoints


@pytest.fixture(params=[SaveDirFormat.FLAT, SaveDirFormat.NESTED])
def paths(request, tmp_path):
    return RunDirectory(tmp_path, "Toy[1]", layout=request.param)


def save(paths, begun, steps, seed=3, last_log=0):
    store = CheckpointStore(paths.checkpoints(begun), "Toy")
    state = TrainingState({}, steps, {}, {}, seed, tracker_state={"last_log": last_log})
    store.save(state, store.path(0, steps))
    return str(store.path(0, steps))


def write_log(paths, begun, *steps, rest=""):
    folder = paths.train_metrics(begun)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"mode": "train", "training_steps": step}) for step in steps]
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines) + rest)


OLD, NEW = "2026-01-02_03-04-05", "2026-01-02_03-04-06"


def test_the_newest_checkpoint_of_the_newest_run(paths):
    assert find_resume_point(paths, None) is None
    save(paths, OLD, 999)
    save(paths, NEW, 64)
    newest = save(paths, NEW, 128)
    found = find_resume_point(paths, None)
    assert (found.checkpoint, found.start_time, found.steps) == (newest, NEW, 128)


def test_runs_of_other_seeds_and_tags_are_not_meant(paths):
    mine = save(paths, OLD, 64, seed=4)
    save(paths, NEW, 128, seed=3)
    save(RunDirectory(paths.output_dir, "Toy", layout=paths.layout), NEW, 128, seed=4)
    save(RunDirectory(paths.output_dir, paths.tag, "extra", layout=paths.layout), NEW, 128, seed=4)
    assert find_resume_point(paths, 4).checkpoint == mine
    assert find_resume_point(paths, 5) is None


def test_damaged_checkpoints_are_skipped(paths, caplog):
    good = save(paths, NEW, 64)
    damaged = save(paths, NEW, 128)
    os.truncate(damaged, 100)
    assert find_resume_point(paths, 3).checkpoint == good
    assert damaged in caplog.text
    os.truncate(good, 100)
    older = save(paths, OLD, 32)
    assert find_resume_point(paths, 3).checkpoint == older


def test_a_checkpoint_whose_logs_were_lost_is_skipped(paths, caplog):
    first = save(paths, NEW, 64, last_log=64)
    second = save(paths, NEW, 128, last_log=128)
    write_log(paths, NEW, 32, 64, rest='{"mode": "train", "training_st')
    assert find_resume_point(paths, None).checkpoint == first
    write_log(paths, NEW, 32, 64, 128)
    assert find_resume_point(paths, None).checkpoint == second
    (paths.train_metrics(NEW) / "metrics.jsonl").unlink()
    assert find_resume_point(paths, None).checkpoint == second
    assert "is lost" in caplog.text


def test_tables_go_on_where_the_run_does(tmp_path):
    table = CsvFiles()
    table.on_start(metrics_dir=tmp_path)
    for step in (64, 128, 192):
        table.on_train_log(metric_means={"train-metrics/reward": step / 64}, step=step)
    found = ResumePoint("", "", TrainingState({}, 128, {}, ToyExperiment().training_pipeline().state_dict(), 3))
    truncate_logs(found, tmp_path, tmp_path, ToyExperiment().training_pipeline())
    again = CsvFiles()
    again.on_start(metrics_dir=tmp_path)
    again.on_train_log(metric_means={"train-metrics/reward": 3.5, "train-misc/new": 1.0}, step=192)
    rows = [line.split(",") for line in (tmp_path / "train.csv").read_text().splitlines()]
    assert [(row[0], row[3], row[4]) for row in rows[1:]] == [
        ("64", "1.0", ""),
        ("128", "2.0", ""),
        ("192", "3.5", "1.0"),
    ]


def test_a_run_that_is_going_on_cannot_be_resumed(tmp_path):
    ours, theirs = RunLock(), RunLock()
    ours.take(tmp_path)
    with pytest.raises(OutputDirectoryError, match="still going on"):
        theirs.take(tmp_path)
    ours.release()
    theirs.take(tmp_path)
    theirs.release()
