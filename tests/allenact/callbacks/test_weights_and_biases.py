"""Logs at Weights & Biases, with the real package, offline. Skipped where it is not installed."""

import importlib.util
import json
import struct
import sys
import time

import pytest

from allenact.errors import MissingExtraError
from allenact.utils.callback_loading import load_callbacks

installed = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason='wandb is not installed: pip install -e ".[wandb]"'
)


def test_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"allenact-gym\[wandb\]"):
        load_callbacks("wandb", object())


@installed
@pytest.mark.filterwarnings("ignore")  # wandb's own
def test_an_offline_run_holds_settings_and_logs(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    (callback,) = load_callbacks("wandb", object())
    callback.setup(name="Toy_extra/2026-01-01_00-00-00", config=None, mode="train")
    callback.on_start(output_dir=tmp_path, metrics_dir=tmp_path, description={"tag": "Toy", "seed": 17})
    callback.on_train_log(metric_means={"train-metrics/reward": 1.25}, step=128)
    callback.on_valid_log(metric_means={"valid-metrics/reward": 2.5}, step=64)
    callback.on_end(failed=False)
    callback.on_end(failed=False)
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 30
    while len(read(file)[0]) < 2 and time.monotonic() < deadline:  # wandb's own process writes the file
        time.sleep(0.1)
    logs, settings = read(file)
    assert logs == [
        {"train-metrics/reward": 1.25, "training_steps": 128},
        {"valid-metrics/reward": 2.5, "training_steps": 64},
    ]
    assert settings == {"project": "Toy", "name": "2026-01-01_00-00-00", "group": "Toy_extra", "seed": 17}


def read(path):
    """Returns what an offline file holds: the logs, and names and a setting of the run."""
    from wandb.proto import wandb_internal_pb2

    logs, settings = [], {}
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            logs.append({key: json.loads(text) for key, text in items.items() if not key.startswith("_")})
        if record.HasField("run"):
            run = record.run
            seeds = [json.loads(item.value_json) for item in run.config.update if item.key == "seed"]
            settings = {"project": run.project, "name": run.display_name, "group": run.run_group, "seed": seeds[0]}
    return logs, settings


def records(content, header=7, block=32768):
    """Yields the records of a file in the format of LevelDB's logs: checksum, length, kind, data; in blocks."""
    position, record = header, b""
    while position + 7 <= len(content):
        if block - position % block < 7:  # no room for the head of a record: zeros up to the next block
            position += block - position % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        if position + 7 + length > len(content):
            return  # still being written
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
