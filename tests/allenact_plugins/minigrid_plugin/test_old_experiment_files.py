"""A task of an AllenAct experiment as it was written for `gym` and `gym_minigrid`, unchanged."""

import subprocess
import sys
from pathlib import Path

OLD_FILE = """
from typing import Any, Dict

import gym
from gym_minigrid.envs import EmptyRandomEnv5x5
from gym_minigrid.minigrid import MiniGridEnv

from allenact.base_abstractions.misc import RLStepResult
from allenact_plugins.minigrid_plugin.minigrid_sensors import EgocentricMiniGridSensor
from allenact_plugins.minigrid_plugin.minigrid_tasks import MiniGridTask, MiniGridTaskSampler


class OldTask(MiniGridTask):
    _ACTION_NAMES = ("left", "right", "forward", "pickup")
    _ACTION_IND_TO_MINIGRID_IND = tuple(MiniGridEnv.Actions.__members__[name].value for name in _ACTION_NAMES)

    @property
    def action_space(self) -> gym.spaces.Dict:
        return gym.spaces.Dict(higher=gym.spaces.Discrete(2), lower=gym.spaces.Discrete(2))

    def _step(self, action: Dict[str, int]) -> RLStepResult:
        index = action["lower"] + 2 * action["higher"]
        obs, reward, self._minigrid_done, info = self.env.step(action=self._ACTION_IND_TO_MINIGRID_IND[index])
        return RLStepResult(
            observation=self.get_observations(minigrid_output_obs=obs), reward=reward, done=self.is_done(), info=info
        )


def make_env(*args: Any, **kwargs: Any):
    return EmptyRandomEnv5x5()


sampler = MiniGridTaskSampler(
    env_class=make_env,
    sensors=[EgocentricMiniGridSensor(agent_view_size=5, view_channels=3)],
    env_info=dict(),
    max_tasks=10,
    task_seeds_list=list(range(10)),
    deterministic_sampling=True,
    task_class=OldTask,
)
lengths = []
while sampler.length > 0:
    task = sampler.next_task()
    while not task.is_done():
        index, success = task.query_expert()
        assert success
        task.step({"higher": index // 2, "lower": index % 2})
    assert task.metrics()["success"] == 1 and task.max_steps == 100
    lengths.append(task.num_steps_taken())
print("mean length", sum(lengths) / len(lengths))
"""


def test_old_files_run_unchanged():
    repository = str(Path(__file__).parents[3])
    start = f"import sys; sys.path.insert(0, {repository!r})\nimport allenact\n"
    command = [sys.executable, "-W", "error", "-c", start + OLD_FILE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 6
