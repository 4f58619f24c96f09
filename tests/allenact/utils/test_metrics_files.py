"""Metrics files read back: values, times, and the parts of resumed runs."""

import json

import pytest

from allenact.errors import MetricsFileError
from allenact.utils.metrics_files import Series, read_run, read_runs


def write(folder, start, rows, tag="Ant"):
    """Writes a metrics file; rows are (mode, steps, wall time, elapsed time or None, reward or None)."""
    file = folder / "metrics" / tag / start / "metrics.jsonl"
    file.parent.mkdir(parents=True)
    lines = []
    for mode, steps, wall_time, elapsed, reward in rows:
        line = {"mode": mode, "training_steps": steps, "wall_time": wall_time}
        if elapsed is not None:
            line["elapsed_time"] = elapsed
        if reward is not None:
            line[f"{mode}-metrics/reward"] = reward
        lines.append(json.dumps(line) + "\n")
    file.write_text("".join(lines))
    return file


def test_a_tag_is_found_by_its_end(tmp_path):
    tags = {"train-onpolicy-misc/lr": 0.5, "train-a-losses/ppo/value": 1.0, "train-b-losses/ppo/value": 2.0}
    tags["valid-misc/evaluation_seconds"] = 3.0
    row = {"mode": "train", "training_steps": 100, "wall_time": 10.0, "elapsed_time": 10.0, **tags}
    file = tmp_path / "metrics" / "Toy" / "start" / "metrics.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(row) + "\n")
    run = read_run(tmp_path)
    assert run.series("lr") == run.series("train-onpolicy-misc/lr")
    with pytest.raises(MetricsFileError, match="choose one of train-a-losses/ppo/value, train-b-losses/ppo/value"):
        run.series("ppo/value")
    with pytest.raises(MetricsFileError, match=r'no "lrr"(.|\n)*did you mean "lr"'):
        run.series("lrr")
    with pytest.raises(MetricsFileError, match='did you mean "valid-misc/evaluation_seconds"'):
        run.series("evaluation_seconds")
    assert run.series("evaluation_seconds", "valid").values == [3.0]


def test_one_run(tmp_path):
    write(
        tmp_path,
        "2026-01-01_00-00-00",
        [("train", 100, 1000.0, 5.0, None), ("train", 200, 1010.0, 15.0, 2.0), ("valid", 200, 1012.0, 17.0, 7.0)],
    )
    run = read_run(tmp_path)
    assert (run.tag, run.steps, run.seconds) == ("Ant", 200, 17.0)
    assert run.series("reward") == Series([200], [15.0], [2.0]), "a log in which no episode ended has no return"
    assert run.series("reward", "valid") == Series([200], [17.0], [7.0])
    assert run.series("valid-metrics/reward") == run.series("reward", "valid")


def test_a_resumed_run_is_one_run_without_its_pause(tmp_path):
    write(tmp_path, "2026-01-01_00-00-00", [("train", step, step / 10, step / 10, step) for step in (100, 200, 300)])
    later = [("train", step, 9000 + step / 10 - 20, step / 10 - 20, -step) for step in (300, 400)]
    write(tmp_path, "2026-01-02_00-00-00", later)
    run = read_run(tmp_path)
    assert len(run.files) == 2
    # It was stopped after 30 s and went on from step 200: the steps from 200 to 300 were paid for twice.
    assert run.series("reward") == Series([100, 200, 300, 400], [10.0, 20.0, 40.0, 50.0], [100, 200, -300, -400])


def test_a_resumed_run_that_has_only_validated_so_far_keeps_what_was_logged_before(tmp_path):
    rows = [("train", 100, 1000.0, 50.0, 2.0), ("valid", 120, 2000.0, 5.0, 7.0)]
    write(tmp_path, "2026-01-01_00-00-00", rows)
    run = read_run(tmp_path)
    assert run.series("reward") == Series([100], [50.0], [2.0])
    assert run.series("reward", "valid") == Series([120], [55.0], [7.0])


@pytest.mark.parametrize("more", [[], [("train", 154, 9009.0, 9.0, 3.0)]])
def test_a_part_in_a_file_of_its_own_that_has_only_validated_belongs_to_its_run(more, tmp_path):
    before = [("train", 50, 1010.0, 10.0, 1.0), ("train", 100, 1020.0, 20.0, 2.0), ("valid", 100, 1021.0, 21.0, 7.0)]
    write(tmp_path, "2026-01-01_00-00-00", before)
    write(tmp_path, "2026-01-01_01-00-00", [("valid", 100, 5001.0, 1.0, 7.5), ("valid", 104, 5005.0, 5.0, 8.0)])
    if more:
        write(tmp_path, "2026-01-01_02-00-00", more)
    run = read_run(tmp_path)
    times = [10.0, 20.0, *(35.0 for _ in more)]
    assert run.series("reward") == Series([50, 100, 154][: len(times)], times, [1.0, 2.0, 3.0][: len(times)])
    assert run.series("reward", "valid") == Series([100, 104], [22.0, 26.0], [7.5, 8.0])


def test_a_run_that_begins_by_validating_its_first_weights_is_another_run(tmp_path):
    for day in (1, 2):
        write(tmp_path, f"2026-01-0{day}_00-00-00", [("valid", 0, 1.0, 1.0, 0.0), ("train", 100, 10.0, 10.0, 0.0)])
    assert len(read_runs(tmp_path)) == 2


def test_files_without_elapsed_time_begin_at_the_pace_that_follows(tmp_path):
    write(tmp_path, "2026-01-01_00-00-00", [("train", step, 500 + step / 10, None, 0.0) for step in (100, 200, 300)])
    write(tmp_path, "2026-01-02_00-00-00", [("train", step, 9000 + step / 5, None, 0.0) for step in (400, 500)])
    assert read_run(tmp_path).series("reward").seconds == pytest.approx([10, 20, 30, 50, 70])


def test_runs_that_start_anew_are_other_runs(tmp_path):
    for day in (1, 2):
        write(tmp_path, f"2026-01-0{day}_00-00-00", [("train", 100, 10.0, 10.0, 0.0)])
    write(tmp_path, "2026-01-01_00-00-00", [("train", 100, 10.0, 10.0, 0.0)], tag="Hopper")
    assert [run.tag for run in read_runs(tmp_path)] == ["Ant", "Ant", "Hopper"]
    with pytest.raises(MetricsFileError, match="there are 3 runs"):
        read_run(tmp_path)


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    file = write(tmp_path, "2026-01-01_00-00-00", [("train", 100, 10.0, 10.0, 1.0)])
    with open(file, "a") as stream:
        stream.write('{"mode": "train", "trai')
    assert read_run(file).series("reward").steps == [100]


@pytest.mark.parametrize("line", ["nonsense\n", '{"mode": "train"}\n', "[1]\n"])
def test_a_broken_line_is_named(line, tmp_path):
    file = write(tmp_path, "2026-01-01_00-00-00", [("train", 100, 10.0, 10.0, 1.0)])
    with open(file, "a") as stream:
        stream.write(line)
    with pytest.raises(MetricsFileError, match="line 2"):
        read_run(tmp_path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(MetricsFileError, match="no run has logged anything"):
        read_run(tmp_path)
    write(tmp_path, "2026-01-01_00-00-00", [("train", 100, 10.0, 10.0, 1.0)])
    with pytest.raises(MetricsFileError, match='did you mean "reward"'):
        read_run(tmp_path).series("rewards")


def test_the_value_at_a_number_of_steps_is_the_last_one_until_then():
    series = Series([100, 200], [1.0, 2.0], [5.0, 6.0])
    assert (series.at(50), series.at(100), series.at(199), series.at(1000)) == (None, 5.0, 5.0, 6.0)
