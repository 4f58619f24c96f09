"""What is not imported: packages that are slow to import, or that not everybody has installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PROGRAMS = {
    "helpers": """
import allenact.utils.misc_utils, allenact.utils.tensor_utils, allenact.utils.model_utils
import allenact.base_abstractions.experiment_config, allenact.base_abstractions.expert_sensors
without("matplotlib", "PIL", "imageio", "tensorboard", "mujoco", "wandb", "cv2", "allenact.pipeline", "allenact.viz")
""",
    "pictures, before the first is drawn": """
import allenact.utils.viz_utils, allenact.utils.multi_agent_viz_utils, allenact.utils.video_utils
from allenact.utils.viz_utils import *
VizSuite(view=AgentViewViz(), paths=TrajectoryViz())
without("matplotlib", "PIL", "imageio", "imageio_ffmpeg", "tensorboard", "mujoco", "torch.utils.tensorboard")
""",
    "spaces of -v2 tasks": """
from allenact_plugins.gym_plugin.gym_sensors import GymMuJoCoSensor
assert GymMuJoCoSensor("Ant-v2", uuid="x").observation_space.shape == (111,)
without("mujoco")
""",
    "core and an experiment, with nothing optional installed": """
import sys
for name in ("matplotlib", "imageio", "tensorboard", "wandb", "minigrid", "Box2D", "networkx", "pygame"):
    sys.modules[name] = None  # importing it raises ImportError
import allenact.main, projects.tutorials.gym_mujoco_tutorial
import allenact.algorithms.onpolicy_sync.runner
""",
    "what a sampler process and a validation do": """
import pickle, tempfile, warnings
from importlib.util import find_spec
from multiprocessing import Pipe
from types import SimpleNamespace
import numpy as np
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.worker import CLOSE, WorkerSpec, run_worker
from allenact.runs.worker_processes import Evaluate, evaluation_worker
from projects.tutorials.gym_mujoco_tutorial import GymMuJoCoTutorialExperimentConfig as Ant
from projects.tutorials.gym_tutorial import GymTutorialExperimentConfig as LunarLander

PICTURES = ("matplotlib", "imageio", "imageio_ffmpeg", "PIL", "tensorboard", "torch.utils.tensorboard", "wandb", "cv2")

def sampler_process(config):
    args = [config.train_task_sampler_args(0, 1, seeds=[1])]
    ours, theirs = Pipe()
    action = np.zeros(config.create_model().action_space.shape)
    for request in (("observe", ()), ("step_batch", (action[None],)), CLOSE):
        ours.send_bytes(pickle.dumps(request))
    run_worker(theirs, pickle.dumps(WorkerSpec(config.make_sampler_fn, args, None, True, None, 0, 1, as_batch=True)))
    info, observations, batch = [pickle.loads(ours.recv_bytes()) for _ in range(3)]
    assert ("MuJoCo" in info.batch) == isinstance(config, Ant)
    assert np.isfinite(batch.rewards).all()

def validation(config):
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save({"model_state_dict": config.create_model().state_dict()}, file.name)
        requests, said = iter([Evaluate(file.name)]), []

        def recv():
            try:
                return next(requests)
            except StopIteration:
                raise EOFError from None

        def send_bytes(message):
            said.append(pickle.loads(message))

        evaluation_worker(SimpleNamespace(send_bytes=send_bytes, recv=recv), config=config, mode="valid")
    assert len(said[1].metrics) == 1

warnings.filterwarnings("ignore", "builtin type")  # Box2D
if find_spec("Box2D"):
    sampler_process(LunarLander())
    validation(LunarLander(num_eval_tasks=1))
    without("mujoco", *PICTURES)
sampler_process(Ant())
validation(Ant(num_eval_tasks=1))
without(*PICTURES)
""",
}

# Runs each program in a fork of a process that has imported torch: it takes longest, and all of them may have it.
RUN = """
import json, os, sys, traceback, warnings
import torch

def without(*names):
    assert not set(names) & set(sys.modules), set(names) & set(sys.modules)

warnings.simplefilter("ignore")  # of forking beside torch's threads
for name, program in json.load(sys.stdin).items():
    child = os.fork()
    if child == 0:
        warnings.simplefilter("error")
        error = None
        try:
            exec(program, {"without": without, "torch": torch})
        except BaseException:
            error = traceback.format_exc()
        print(json.dumps([name, error]), flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        print(json.dumps([name, f"its process has ended with the status {status}"]))
"""


@pytest.fixture(scope="module")
def errors():
    command = [sys.executable, "-c", RUN]
    done = subprocess.run(command, input=json.dumps(PROGRAMS), capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", PROGRAMS)
def test_imported_without(name, errors):
    assert errors[name] is None, errors[name]
