"""The `-v2` MuJoCo tasks, each defined once as NumPy functions over any number of simulations.

`base.py` says what a task consists of; the other files hold the data sheets, by kind of robot.
Importing this package does not import MuJoCo; making an instance of a task does (it compiles the model).
"""

from __future__ import annotations

from allenact_plugins.gym_plugin.mujoco_tasks.arms import Pusher, Reacher
from allenact_plugins.gym_plugin.mujoco_tasks.base import Fields, MuJoCoTask
from allenact_plugins.gym_plugin.mujoco_tasks.humanoids import Humanoid, HumanoidStandup
from allenact_plugins.gym_plugin.mujoco_tasks.legged import Ant, HalfCheetah, Hopper, Swimmer, Walker2d
from allenact_plugins.gym_plugin.mujoco_tasks.pendulums import InvertedDoublePendulum, InvertedPendulum

MUJOCO_TASKS: dict[str, type[MuJoCoTask]] = {
    "Ant-v2": Ant,
    "HalfCheetah-v2": HalfCheetah,
    "Hopper-v2": Hopper,
    "Humanoid-v2": Humanoid,
    "HumanoidStandup-v2": HumanoidStandup,
    "InvertedDoublePendulum-v2": InvertedDoublePendulum,
    "InvertedPendulum-v2": InvertedPendulum,
    "Pusher-v2": Pusher,
    "Reacher-v2": Reacher,
    "Swimmer-v2": Swimmer,
    "Walker2d-v2": Walker2d,
}

__all__ = ["MUJOCO_TASKS", "Fields", "MuJoCoTask"]
