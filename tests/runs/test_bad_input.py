"""Bad input: a clear error with what to do, exit status 2, and nothing started."""

import os
import sys
import textwrap

import numpy as np
import pytest
import torch

from allenact.errors import SpaceMismatchError
from allenact.main import main
from allenact.testing.experiments import ToyExperiment
from allenact.testing.tasks import ToySensor

TOY = """
from allenact.testing.experiments import ToyExperiment

class {name}(ToyExperiment):
    def __init__(self, **kwargs):
        super().__init__(**{{**dict({arguments}), **kwargs}})
"""


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Writes an experiment file and returns its path; each has a module name of its own."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    number = 0

    def write(source=None, arguments="", name=None):
        nonlocal number
        number += 1
        path = tmp_path / f"{name or 'exp'}_{os.path.basename(tmp_path)}_{number}.py"
        text = TOY.format(name="Experiment", arguments=arguments) if source is None else textwrap.dedent(source)
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def refused(tmp_path, capfd):
    """Runs the command line, without sampler processes, which must answer with status 2; returns what it printed."""

    def run(*arguments):
        output = tmp_path / "out"
        assert main(["-m", "1", *arguments, "-o", str(output)]) == 2
        assert not (output / "checkpoints").exists()
        if "--eval" not in arguments:  # a test makes its folders before it reads the first checkpoint
            left = [path.name for path in output.glob("[!.]*")]
            assert left == [], "folders of a run that never began"
        return capfd.readouterr().err

    return run


def test_unknown_experiment_names_the_nearest(refused):
    error = refused("gym_mujoco_tutorail", "-b", "projects/tutorials")
    assert 'no experiment is called "gym_mujoco_tutorail"' in error
    assert 'did you mean "gym_mujoco_tutorial"' in error


def test_the_right_name_without_its_folder(refused):
    error = refused("gym_mujoco_tutorial")
    assert "add -b projects/tutorials, or pass the path of the file" in error
    assert "did you mean" not in error


def test_missing_experiment_base(refused):
    assert 'the experiment base "nowhere" is not a directory' in refused("x", "-b", "nowhere")


def test_file_without_an_experiment(experiment, refused):
    error = refused(experiment("from allenact.testing.experiments import ToyExperiment\n"))
    assert "must define exactly one experiment, it defines 0" in error
    assert "imported ones do not count" in error


def test_file_with_two_experiments(experiment, refused):
    path = experiment(TOY.format(name="First", arguments="") + TOY.format(name="Second", arguments=""))
    error = refused(path)
    assert "it defines 2" in error
    assert "First, Second" in error
    assert ":First" in error


def test_one_of_two_experiments_can_be_named(experiment, refused):
    path = experiment(TOY.format(name="First", arguments="") + TOY.format(name="Second", arguments=""))
    assert 'defines no ExperimentConfig class "Thrid"' in refused(path + ":Thrid")


def test_exception_in_the_file_shows_only_the_users_frames(experiment, refused):
    path = experiment("def f():\n    return 1 / 0\n\nf()\n")
    error = refused(path)
    assert "the experiment raised ZeroDivisionError: division by zero" in error
    assert f'File "{path}", line 2, in f' in error
    assert "importlib" not in error
    assert "experiment_loading" not in error


def test_syntax_error_in_the_file(experiment, refused):
    error = refused(experiment("def f(:\n"))
    assert "the experiment raised SyntaxError" in error
    assert "def f(:" in error


def test_missing_dependency_of_the_file(experiment, refused):
    assert "ModuleNotFoundError: No module named 'no_such_module'" in refused(experiment("import no_such_module\n"))


def test_a_python_that_is_not_the_environment_s(experiment, refused):
    error = refused(experiment("raise ModuleNotFoundError(name='gymnasium')\n"))
    assert "source .venv/bin/activate" in error
    assert sys.executable in error


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ('{"task": "copy"', "are not valid JSON"),
        ("[1, 2]", "must be a JSON object"),
        ("no_such_file.json", "neither JSON nor an existing file"),
        ("task=copy num_steps", "are not name=value"),
    ],
)
def test_malformed_config_kwargs(kwargs, message, experiment, refused):
    assert message in refused(experiment(), "--config_kwargs", kwargs)


def test_misspelt_config_kwargs(refused):
    error = refused("gym_mujoco_tutorial", "-b", "projects/tutorials", "--config_kwargs", '{"total_stepz": 1}')
    assert 'takes no keyword argument "total_stepz"' in error
    assert 'did you mean "total_steps"' in error


def test_config_kwargs_for_an_experiment_that_takes_none(experiment, refused):
    file = experiment("""
        from allenact.testing.experiments import ToyExperiment
        class Plain(ToyExperiment):
            __init__ = object.__init__
    """)
    error = refused(file, "--config_kwargs", '{"total_steps": 1}')
    assert 'Plain takes no keyword argument "total_steps"' in error


def test_misspelt_config_kwargs_of_a_base_class(experiment, refused):
    file = experiment("""
        from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig as Tutorial
        class Mine(Tutorial):
            def __init__(self, *, num_steps=64, **kwargs):
                super().__init__(num_steps=num_steps, **kwargs)
    """)
    error = refused(file, "--config_kwargs", '{"num_steps": 8, "total_stepz": 1}')
    assert 'Mine takes no keyword argument "total_stepz"' in error
    assert 'did you mean "total_steps"' in error


def test_a_method_is_missing(experiment, refused):
    error = refused(
        experiment("""
        from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig as Tutorial
        from allenact.base_abstractions.experiment_config import ExperimentConfig

        class Experiment(ExperimentConfig):
            make_sampler_fn, create_model = Tutorial.make_sampler_fn, Tutorial.create_model
            machine_params, training_pipeline = Tutorial.machine_params, Tutorial.training_pipeline

            @classmethod
            def tagg(cls):
                return "Mine"
        """)
    )
    assert "Experiment lacks what every experiment needs" in error
    assert "no tag" in error
    assert 'did you mean "tagg"' in error


@pytest.mark.parametrize("mode", [(), ("--eval",)])
def test_missing_checkpoint(mode, experiment, refused):
    assert "no checkpoint was found" in refused(experiment(), "-c", "nowhere.pt", *mode)


def test_folder_without_checkpoints(experiment, refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "a folder without .pt files" in refused(experiment(), "--eval", "-c", str(tmp_path / "empty"))


def test_file_that_is_no_checkpoint(experiment, refused, tmp_path):
    path = tmp_path / "note.pt"
    path.write_text("hello")
    assert "the checkpoint cannot be read" in refused(experiment(), "-c", str(path))
    torch.save({"weights": 1}, path)
    assert "it has no model_state_dict" in refused(experiment(), "-c", str(path))


def write_checkpoint(path, **model):
    torch.save({"model_state_dict": model, "total_steps": 10, "training_pipeline_state_dict": {}}, path)


def test_truncated_checkpoint(experiment, refused, tmp_path):
    path = tmp_path / "exp__steps_10.pt"
    write_checkpoint(path, weight=torch.zeros(1000))
    path.write_bytes(path.read_bytes()[:2000])
    assert "truncated, damaged, or no checkpoint at all" in refused(experiment(), "-c", str(path))


@pytest.mark.parametrize("mode", [(), ("--eval",)])
def test_checkpoint_of_another_model(mode, experiment, refused, tmp_path):
    path = tmp_path / "exp__steps_10.pt"
    write_checkpoint(path, **{"linear.weight": torch.zeros(7, 4), "linear.bias": torch.zeros(7)})
    error = refused(experiment(), "-c", str(path), *mode)
    assert "it is the checkpoint of another model" in error
    assert '"linear.weight" is [7, 4] in the checkpoint and [5, 4] in the model' in error
    write_checkpoint(path, **{"layer.weight": torch.zeros(7, 4)})
    assert 'the model has "linear.weight", the checkpoint has not' in refused(experiment(), "-c", str(path), *mode)


def test_unknown_environment(experiment, refused):
    error = refused(
        experiment("""
        from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig
        from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor

        class Experiment(GymMuJoCoTutorialExperimentConfig):
            SENSORS = [GymMuJoCoSensor("Antv-2", uuid="gym_mujoco_data")]
        """)
    )
    assert "Antv-2" in error
    assert 'did you mean "Ant-v2"' in error
    assert "GymMuJoCoSensor(" in error, "the user's line is shown"


def test_observation_that_the_tasks_do_not_give(experiment, refused):
    error = refused(
        experiment("""
        import gymnasium as gym
        from allenact.testing.experiments import ToyExperiment
        from allenact.embodiedai.models.basic_models import LinearActorCritic

        class Experiment(ToyExperiment):
            def create_model(self, **kwargs):
                space = gym.spaces.Dict({"toy": gym.spaces.Box(-1, 1, (9,))})
                return LinearActorCritic("toy", self.action_space, space)
        """)
    )
    assert 'model and tasks disagree about the observation "toy"' in error
    assert "(9,)" in error
    assert "(4,)" in error


def test_observations_that_do_not_fit_their_space(train):
    class Sensor(ToySensor):
        def get_observation(self, *args, **kwargs):
            return np.append(super().get_observation(*args, **kwargs), np.float32(0))

    class Experiment(ToyExperiment):
        sensors = [Sensor(4)]

    with pytest.raises(SpaceMismatchError, match='"toy" is not of the size that its space says') as caught:
        train(Experiment())
    assert "shape (5,), Box(-1.0, 1.0, (4,), float32)" in str(caught.value)


def test_actions_that_the_tasks_do_not_take(experiment, refused):
    error = refused(
        experiment("""
        import gymnasium as gym
        from allenact.testing.experiments import ToyExperiment
        from allenact.base_abstractions.sensor import SensorSuite
        from allenact.embodiedai.models.basic_models import LinearActorCritic

        class Experiment(ToyExperiment):
            def create_model(self, **kwargs):
                return LinearActorCritic("toy", gym.spaces.Discrete(9), SensorSuite(self.sensors).observation_spaces)
        """)
    )
    assert "model and tasks disagree about the actions" in error
    assert "Discrete(9)" in error


def test_more_mini_batches_than_samplers(experiment, refused):
    error = refused(experiment(arguments="num_mini_batch=8"))
    assert "8 mini-batches cannot be cut from 4 task samplers" in error


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("num_steps=0", "num_steps"),
        ("num_steps=-5", "num_steps"),
        ("update_repeats=-1", "update_repeats"),
        ("num_samplers=0", "nprocesses"),
        ("num_samplers=-2", "nprocesses"),
        ("gamma=1.5", "gamma"),
        ("max_grad_norm=0.0", "max_grad_norm"),
    ],
)
def test_sizes_that_cannot_be(arguments, names, experiment, refused):
    assert names in refused(experiment(arguments=arguments))


def test_unwritable_output_directory(experiment, tmp_path, capfd):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main([experiment(), "-o", str(blocked)]) == 2
    assert "the output directory cannot be written" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-m", "0"], "needs a whole number of at least 1"),
        (["-s", "-3"], "needs a whole number from 0"),
        (["--eval"], "--eval needs --checkpoint"),
        (["-r"], "--restart_pipeline needs --checkpoint"),
        (["--sampler_backend", "fast"], "invalid choice"),
        (["--approx_ckpt_step_interval", "0"], "needs a number above 0"),
        (["--infer_output_dir"], "works only with --eval"),
    ],
)
def test_flags_that_do_not_fit(flags, message, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["experiment", *flags])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_evaluation_is_told_where_the_newest_checkpoints_are(tmp_path, capsys):
    for age, run in enumerate(["newest", "older"]):
        file = tmp_path / "checkpoints" / "Tag" / run / "exp_Tag__stage_00__steps_000000000064.pt"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"")
        os.utime(file, (1e9 - age, 1e9 - age))
    with pytest.raises(SystemExit):
        main(["experiment", "--eval", "-o", str(tmp_path)])
    assert f"the newest are in {tmp_path / 'checkpoints' / 'Tag' / 'newest'}\n" in capsys.readouterr().err


def test_unknown_callback(experiment, refused):
    assert '"no_such_method" is no callback of the experiment' in refused(experiment(), "--callbacks", "no_such_method")
    assert 'did you mean "wandb"?' in refused(experiment(), "--callbacks", "csv,wanbd")


def test_missing_extra_names_the_pip_command(experiment, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", sys.modules.get("Box2D"))  # put back afterwards
    error = refused(
        experiment("""
        import sys
        from projects.tutorials.gym_tutorial import GymTutorialExperimentConfig

        sys.modules["Box2D"] = None  # as if it were not installed, here and in the worker processes


        class Experiment(GymTutorialExperimentConfig):
            pass
        """),
        "-m",
        "2",
    )
    assert 'pip install "allenact-gym[box2d]"' in error
