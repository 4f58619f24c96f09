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
            exec(program, {"without": without})
        except BaseException:
            error = traceback.format_exc()
        print(json.dumps([name, error]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
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
