"""OnPolicyRunner as a library: what its two calls return, which files they leave, and what callbacks are told."""

import json
import os
import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from allenact.algorithms.onpolicy_sync.runner import CONFIG_KWARGS_STR, OnPolicyRunner, SaveDirFormat
from allenact.base_abstractions.callbacks import Callback
from allenact.errors import AllenActError, CheckpointError
from allenact.testing.experiments import ToyExperiment
from allenact.testing.tasks import ToySensor

STEPS = (0, 64, 128)
EXPERT_REWARD = 5.0  # CopyTask with max_steps 6: five numbers to copy
START_TIME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")


class Recorder(Callback):
    """Keeps every call of every hook."""

    def __init__(self):
        self.calls = []

    def setup(self, name, config, mode, **kwargs):
        self.calls.append(("setup", {"name": name, "config": config, "mode": mode}))

    def on_start(self, **kwargs):
        self.calls.append(("start", kwargs))

    def on_end(self, **kwargs):
        self.calls.append(("end", kwargs))

    def on_train_log(self, **kwargs):
        self.calls.append(("train", kwargs))

    def on_valid_log(self, **kwargs):
        self.calls.append(("valid", kwargs))

    def on_test_log(self, **kwargs):
        self.calls.append(("test", kwargs))

    def after_save_project_state(self, base_dir):
        self.calls.append(("saved", {"base_dir": base_dir}))

    def callback_sensors(self):
        return [ToySensor(4, uuid="last_seen")]

    def of(self, hook):
        return [kwargs for name, kwargs in self.calls if name == hook]


RECORDERS = []


class WatchedToy(ToyExperiment):
    """The toy with an expert to ask and a callback."""

    def __init__(self, **kwargs):
        super().__init__(**{"task": "copy", "imitate": True, **kwargs})

    def recorder(self):
        RECORDERS.append(Recorder())
        return RECORDERS[-1]


def make_runner(config, output_dir, **kwargs):
    defaults = {
        "loaded_config_src_files": None,
        "seed": 1,
        "multiprocessing_start_method": "fork",
        "sampler_backend": "serial",
    }
    return OnPolicyRunner(config, output_dir=output_dir, **{**defaults, **kwargs})


class Trained:
    """A run that validated its initial weights and everything after, with a callback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sources = {__file__: "a.module", CONFIG_KWARGS_STR: '{"task": "copy"}'}
        with make_runner(WatchedToy(), folder, loaded_config_src_files=sources, callbacks_paths="recorder") as runner:
            self.answer = runner.start_train(collect_valid_results=True, valid_on_initial_weights=True)
        self.runner = runner
        self.start, self.results = self.answer
        self.recorder = RECORDERS[-1]
        self.checkpoints = folder / "checkpoints" / "Toy" / self.start

    def test(self, pattern, output_dir, callbacks=None, **kwargs):
        with make_runner(
            WatchedToy(), output_dir, mode="test", callbacks_paths=callbacks, deterministic_agents=True
        ) as runner:
            return runner, runner.start_test(str(pattern), **kwargs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def tested(trained):
    """Every checkpoint of the run, tested with a `**` glob into the same output folder."""
    runner, results = trained.test(trained.folder / "**" / "*.pt", trained.folder, callbacks="recorder")
    return runner, results, RECORDERS[-1]


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


# What start_train returns and leaves


def test_training_returns_its_start_time_and_the_validation_results(trained):
    assert START_TIME.fullmatch(trained.start)
    assert trained.runner.local_start_time_str == trained.start
    steps = [result["training_steps"] for result in trained.results]
    assert steps == sorted(set(steps))
    assert steps[-1] == 128, "the last checkpoint is always validated"
    for result in trained.results:
        assert len(result["tasks"]) == 6
        assert result["tasks"][0].keys() == {"ep_length", "reward", "task_info"}
        rewards = [task["reward"] for task in result["tasks"]]
        assert result["valid-metrics/reward"] == pytest.approx(sum(rewards) / 6)
        assert result.keys() == {"valid-metrics/reward", "valid-metrics/ep_length", "training_steps", "tasks"}


def test_each_validation_result_has_a_file(trained):
    folder = trained.folder / "metrics" / "Toy" / trained.start
    files = {
        f"metrics__valid_{trained.start}{result['training_steps']:012d}.json": result for result in trained.results
    }
    assert set(os.listdir(folder)) >= files.keys()
    for name, result in files.items():
        text = (folder / name).read_text()
        assert json.loads(text) == result
        assert text == json.dumps(result, indent=4, sort_keys=True)


def test_flat_layout(trained):
    assert sorted(os.listdir(trained.checkpoints)) == [f"exp_Toy__stage_00__steps_{steps:012d}.pt" for steps in STEPS]
    used = trained.folder / "used_configs" / "Toy" / trained.start
    assert (used / "config_kwargs.json").read_text() == '{"task": "copy"}'
    copied = (used / Path(__file__).name).read_text()
    assert copied == f"### THIS FILE ORIGINALLY LOCATED AT '{__file__}'\n\n" + Path(__file__).read_text()
    (events,) = (trained.folder / "tb" / "Toy" / trained.start).glob("events*")
    assert events.name.endswith(f"__train_{trained.start}")
    assert (trained.folder / ".allenact_last_start_time_string").exists()


def test_runner_knows_its_places(trained):
    runner = trained.runner
    assert runner.experiment_name == "Toy"
    assert runner.checkpoint_dir() == str(trained.checkpoints)
    assert runner.checkpoint_dir("2000-01-01_00-00-00", create_if_none=False).endswith("Toy/2000-01-01_00-00-00")
    assert runner.log_writer_path(trained.start) == str(trained.folder / "tb" / "Toy" / trained.start)
    assert runner.metric_path(trained.start) == str(trained.folder / "metrics" / "Toy" / trained.start)
    assert runner.running_validation
    assert runner.local_worker_ids("train") == [0]
    files = runner.get_checkpoint_files(str(trained.checkpoints))
    assert [runner.step_from_checkpoint(path) for path in files] == list(STEPS)
    assert runner.checkpoint_start_time_str(files[0]) == trained.start


def test_a_runner_has_no_start_time_before_it_starts(tmp_path):
    with make_runner(ToyExperiment(), tmp_path) as runner, pytest.raises(RuntimeError):
        _ = runner.local_start_time_str


def test_a_runner_only_trains_or_tests(tmp_path):
    with pytest.raises(AllenActError, match="valid"):
        make_runner(ToyExperiment(), tmp_path, mode="valid")


def test_nothing_but_checkpoints_and_metrics_where_the_rest_is_disabled(tmpdir):
    """`tmpdir` is a py.path, as in old scripts."""
    config = ToyExperiment(num_eval_samplers=0, stage_steps=(64,))
    with make_runner(
        config,
        tmpdir,
        loaded_config_src_files={__file__: "a.module"},
        disable_tensorboard=True,
        disable_config_saving=True,
        extra_tag="more",
    ) as runner:
        assert not runner.running_validation
        start = runner.start_train()
    assert START_TIME.fullmatch(start), "only the start time, without collect_valid_results"
    assert [name for name in files_below(tmpdir) if not name.startswith(".allenact")] == [
        f"checkpoints/Toy/more/{start}/exp_Toy_more__stage_00__steps_000000000064.pt",
        f"metrics/Toy/more/{start}/metrics.jsonl",
    ]


# What start_test returns and leaves


def test_testing_a_glob_gives_one_result_per_checkpoint(trained, tested):
    runner, results, _ = tested
    assert [result["training_steps"] for result in results] == list(STEPS)
    for result in results:
        assert len(result["tasks"]) == 6
        for key in ("reward", "ep_length"):
            values = [task[key] for task in result["tasks"]]
            assert result[f"test-metrics/{key}"] == pytest.approx(sum(values) / 6)
    start = runner.local_start_time_str
    assert start != trained.start
    text = (trained.folder / "metrics" / "Toy" / start / f"metrics__test_{start}.json").read_text()
    assert json.loads(text) == results
    evaluation = json.loads((trained.folder / "metrics" / "Toy" / start / "evaluation.json").read_text())
    assert [each["metrics"]["reward"]["n"] for each in evaluation["checkpoints"]] == [6] * len(STEPS)
    (events,) = os.listdir(trained.folder / "tb" / "Toy" / trained.start / "test" / start)
    assert events.endswith(f"__test_{start}")


def test_a_single_file_and_a_thinned_folder(trained, tested, tmp_path):
    _, all_results, _ = tested
    last = sorted(trained.checkpoints.iterdir())[-1]
    _, results = trained.test(last, tmp_path)
    assert results == all_results[-1:], "the same tasks for every checkpoint, whatever was tested before"
    _, results = trained.test(trained.checkpoints, tmp_path, approx_ckpt_step_interval=128)
    assert [result["training_steps"] for result in results] == [0, 128]
    assert results == [all_results[0], all_results[-1]]


def test_the_expert_plays_if_asked_to(trained, tmp_path):
    first = sorted(trained.checkpoints.iterdir())[0]
    _, (result,) = trained.test(first, tmp_path, inference_expert=True)
    assert [task["reward"] for task in result["tasks"]] == [EXPERT_REWARD] * 6


def test_no_checkpoint_no_test(trained, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint was found"):
        trained.test(tmp_path / "*.pt", tmp_path)


def test_nested_layout(tmp_path):
    config = ToyExperiment(stage_steps=(64,))
    nested = {"save_dir_fmt": SaveDirFormat.NESTED, "extra_tag": "more"}
    with make_runner(config, tmp_path, loaded_config_src_files={__file__: "a.module"}, **nested) as runner:
        start, results = runner.start_train(collect_valid_results=True)
    run = tmp_path / "Toy" / "more" / start
    checkpoint = run / "checkpoints" / "exp_Toy_more__stage_00__steps_000000000064.pt"
    assert set(os.listdir(run)) >= {"checkpoints", "used_configs", "train_tb"}
    assert os.listdir(run / "checkpoints") == [checkpoint.name]
    assert Path(__file__).name in os.listdir(run / "used_configs")
    assert [result["training_steps"] for result in results] == [64]

    with make_runner(config, tmp_path / "ignored", mode="test", **nested) as runner:
        runner.start_test(str(checkpoint), infer_output_dir=True)
        test_start = runner.local_start_time_str
        assert runner.output_dir == str(run), "what the command says to look at"
    assert not (tmp_path / "ignored").exists()
    names = os.listdir(run / "test" / "Toy" / test_start)
    assert "metrics.json" in names
    assert any(name.endswith(f"__test_{test_start}") for name in names)

    with make_runner(config, tmp_path / "elsewhere", mode="test", **nested) as runner:
        runner.start_test(str(run / "checkpoints"))
        test_start = runner.local_start_time_str
    assert (tmp_path / "elsewhere" / "test" / "Toy" / test_start / "metrics.json").exists()


# Callbacks

LOG_KEYWORDS = {
    "metrics",
    "metric_means",
    "tasks_data",
    "step",
    "scalar_name_to_total_experiences_key",
    "checkpoint_file_name",
}


def test_callbacks_are_set_up_first_and_told_where_the_sources_are(trained):
    recorder = trained.recorder
    assert [name for name, _ in recorder.calls[:3]] == ["setup", "saved", "start"]
    (began,) = recorder.of("start")
    assert (began["output_dir"], began["metrics_dir"]) == (
        trained.folder,
        trained.folder / "metrics" / "Toy" / trained.start,
    )
    assert began["description"]["tag"] == "Toy"
    assert recorder.calls[-1] == ("end", {"failed": False})
    (setup,) = recorder.of("setup")
    assert setup["name"] == f"Toy/{trained.start}"
    assert setup["config"] is trained.runner.config
    assert setup["mode"] == "train"
    assert recorder.of("saved") == [{"base_dir": str(trained.folder / "used_configs" / "Toy" / trained.start)}]


def test_callbacks_hear_of_training(trained):
    logs = trained.recorder.of("train")
    assert [log["step"] for log in logs] == [32, 64, 96, 128]
    checkpoints = [log["checkpoint_file_name"] for log in logs]
    assert [None if path is None else Path(path).name for path in checkpoints] == [
        None,
        "exp_Toy__stage_00__steps_000000000064.pt",
        None,
        "exp_Toy__stage_00__steps_000000000128.pt",
    ]
    for log in logs:
        assert log.keys() == LOG_KEYWORDS
        means, tasks = log["metric_means"], log["metrics"]
        assert isinstance(tasks, list)
        assert means["train-misc/num_tasks_completed_since_last_log"] == len(tasks) == len(log["tasks_data"])
        assert means["train-misc/pipeline_stage"] == 0
        assert means["train-misc/onpolicy_total_experiences"] == log["step"]
        if tasks:
            assert means["train-metrics/reward"] == pytest.approx(sum(task["reward"] for task in tasks) / len(tasks))
        x_axes = log["scalar_name_to_total_experiences_key"]
        assert x_axes["train-onpolicy-losses/ppo_loss/value"] == "train-misc/onpolicy_total_experiences"
        assert set(x_axes) <= set(means)
        assert set(x_axes.values()) <= set(means)
    rated = ["train-misc/approx_fps" in log["metric_means"] for log in logs]
    assert rated == [False, True, True, True]
    assert "train-onpolicy-misc/approx_eps" in logs[1]["metric_means"]


def test_callbacks_hear_of_validation(trained):
    logs = trained.recorder.of("valid")
    assert [log["metrics"] for log in logs] == trained.results
    for log in logs:
        assert log.keys() == LOG_KEYWORDS
        assert log["step"] == log["metrics"]["training_steps"]
        assert log["checkpoint_file_name"].endswith(f"steps_{log['step']:012d}.pt")
        assert log["metric_means"]["valid-misc/num_tasks_completed_since_last_log"] == 6


def test_callbacks_hear_of_tests(tested):
    runner, results, recorder = tested
    assert [name for name, _ in recorder.calls] == ["setup", "start", "test", "test", "test", "end"]
    (setup,) = recorder.of("setup")
    assert setup["mode"] == "test"
    assert setup["name"] == f"Toy/{runner.local_start_time_str}"
    assert [log["metrics"] for log in recorder.of("test")] == results
    assert all(log.keys() == LOG_KEYWORDS for log in recorder.of("test"))


@pytest.mark.parametrize("hook", ["train", "valid", "test"])
def test_callback_sensors_see_the_end_of_every_task(hook, trained, tested):
    logs = (tested[2] if hook == "test" else trained.recorder).of(hook)
    seen = [data["last_seen"] for log in logs for data in log["tasks_data"]]
    assert seen
    for observation in seen:
        assert observation.shape == (4,)
        assert observation.sum() == 1  # one-hot


def test_a_module_can_be_a_callback(trained, tmp_path, monkeypatch, capfd):
    module = tmp_path / "shouting.py"
    module.write_text(
        "from allenact.base_abstractions.callbacks import Callback\n"
        "class Shout(Callback):\n"
        "    heard = []\n"
        "    def on_test_log(self, *, step, **kwargs):\n"
        "        self.heard.append(step)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    trained.test(trained.checkpoints, tmp_path / "out", callbacks="recorder,shouting.py")
    import shouting

    assert shouting.Shout.heard == list(STEPS)
    assert len(RECORDERS[-1].of("test")) == 3


# What is logged


def documented_tags():
    """Returns a pattern for every tag that docs/metrics.md defines."""
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    tags = {
        tag for row in re.findall(r"^\| (`.*) \|$", page, re.MULTILINE) for tag in re.findall(r"`([\w<> /-]+)`", row)
    }
    known = {"mode": "(train|valid|test)", "component": r"\w+", "storage": r"\w+", "loss": r"\w+", "key": r"[\w/]+"}
    known |= {"phase": "(collect|returns|update|save|log)"}
    names = {tag: set(re.findall("<(.*?)>", tag)) for tag in tags}
    patterns = [tag for tag in tags if "/" in tag and names[tag] <= known.keys()]
    for name, pattern in known.items():
        patterns = [each.replace(f"<{name}>", pattern) for each in patterns]
    return patterns


def test_every_tag_of_a_run_is_documented(trained, tested):
    logged = {"config"}
    for folder in (trained.folder / "tb").rglob("events*"):
        events = EventAccumulator(str(folder))
        events.Reload()
        logged |= set(events.Tags()["scalars"])
        logged |= {tag.removesuffix("/text_summary") for tag in events.Tags()["tensors"]}
    assert {"train-misc/time_share_update", "valid-misc/evaluation_seconds", "test-metrics/reward"} <= logged
    logged -= {"config", "_hparams_/experiment"}
    patterns = documented_tags()
    missing = [tag for tag in logged if not any(re.fullmatch(pattern, tag) for pattern in patterns)]
    assert missing == []
