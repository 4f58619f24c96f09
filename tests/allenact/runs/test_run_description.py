"""What TensorBoard is told about a run before it begins."""

import json

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from allenact.runs.run_description import describe_run, hyper_parameters, write_description
from allenact.utils.experiment_loading import CONFIG_KWARGS_STR
from allenact.utils.video_utils import SummaryWriter
from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig


def describe():
    config = GymMuJoCoTutorialExperimentConfig(total_steps=4096, learning_rate=0.01)
    return describe_run(config, seed=3, source_files={CONFIG_KWARGS_STR: '{"total_steps": 4096}'})


def test_every_setting_has_the_value_that_is_used():
    description = describe()
    assert description["config_kwargs"] == {"total_steps": 4096}
    assert description["attributes"]["update_repeats"] == 10
    (stage,) = description["pipeline"]["stages"]
    assert stage["max_stage_steps"] == 4096
    assert stage["settings"]["gae_lambda"] == 0.95  # set on the pipeline
    assert stage["settings"]["bootstrap_truncated"] is False  # the default
    assert description["pipeline"]["losses"]["ppo_loss"]["clip_param"] == 0.2
    assert description["pipeline"]["optimizer"] == {"class": "Adam", "lr": 0.01}
    assert description["train_samplers"] == [8]
    assert description["versions"]["torch"].startswith("2.")
    assert " at 0x" not in json.dumps(description)


def test_tensorboard_has_the_config_as_text_and_the_hyper_parameters(tmp_path):
    description = describe()
    with SummaryWriter(str(tmp_path)) as writer:
        write_description(writer, description)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (text,) = events.Tensors("config/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert json.loads("\n".join(line[4:] for line in shown.splitlines())) == description
    data = plugin_data_pb2.HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    values = data.session_start_info.hparams
    assert values["learning_rate"].number_value == 0.01
    assert values["mini_batches_over"].string_value == "samplers"
    assert hyper_parameters(description)["seed"] == values["seed"].number_value == 3
