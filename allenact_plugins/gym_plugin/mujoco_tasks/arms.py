"""Arms that reach or push. Both are paid for the distances before the step, as they always were."""

# ruff: noqa: D102  (what each method returns is documented on MuJoCoTask)
from __future__ import annotations

from typing import Any

import numpy as np

from allenact_plugins.gym_plugin.mujoco_tasks.base import Array, Fields, MuJoCoTask, row_sums


class Reacher(MuJoCoTask):
    """A planar arm with two joints learns to touch a target that stays where it is during an episode.

    Observation, 11 entries:

    | entries | meaning                                               | range     | unit  |
    | ------- | ----------------------------------------------------- | --------- | ----- |
    | 0:2     | cosine of the joint angles joint0, joint1             | -1, 1     | 1     |
    | 2:4     | sine of the same                                      | -1, 1     | 1     |
    | 4:6     | x, y of the target                                    | -0.2, 0.2 | m     |
    | 6:8     | joint velocities                                      | -inf, inf | rad/s |
    | 8:11    | fingertip minus target, the last entry always 0       | -inf, inf | m     |

    Action, 2 torques in [-1, 1] (times 200 N m).

    Reward: -(distance of fingertip and target before the step, m) - |action|^2. Never ends by itself.
    """

    model_file = "reacher.xml"
    frame_skip = 2
    derived_fields = ("xpos",)
    max_episode_steps = 50
    reward_threshold = -3.75
    observation_size = 11

    def observation(self, fields: Fields) -> Array:
        angles = fields.qpos[:, :2]
        parts = [np.cos(angles), np.sin(angles), fields.qpos[:, 2:], fields.qvel[:, :2], self.measure(fields)]
        return np.concatenate(parts, axis=1)  # [N, 11]

    def measure(self, fields: Fields) -> Array:
        fingertip, target = fields.xpos[:, 3], fields.xpos[:, 4]  # [N, 3] each
        return fingertip - target

    def reward_terms(
        self, fields: Fields, observation: Array, action: Array, before: Array, after: Array
    ) -> dict[str, Array]:
        return {
            "reward_dist": -np.linalg.norm(before, axis=1),
            "reward_ctrl": -row_sums(np.square(action)),
        }

    def initial_state(self, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = self.model.qpos0 + self.uniform(rng, self.model.nq, 0.1)
        while True:
            target = self.uniform(rng, 2, 0.2)
            if np.linalg.norm(target) < 0.2:
                break
        qpos[-2:] = target
        qvel = self.uniform(rng, self.model.nv, 0.005)
        qvel[-2:] = 0
        return qpos, qvel


class Pusher(MuJoCoTask):
    """An arm with seven joints learns to push an object onto a goal.

    Observation, 23 entries:

    | entries | meaning                                                                 | range     | unit  |
    | ------- | ----------------------------------------------------------------------- | --------- | ----- |
    | 0:7     | joint angles: shoulder pan, shoulder lift, upper arm roll, elbow flex,  | -inf, inf | rad   |
    |         | forearm roll, wrist flex, wrist roll                                    |           |       |
    | 7:14    | joint velocities                                                        | -inf, inf | rad/s |
    | 14:17   | position of the tip of the arm                                          | -inf, inf | m     |
    | 17:20   | position of the object                                                  | -inf, inf | m     |
    | 20:23   | position of the goal                                                    | -inf, inf | m     |

    Action, 7 torques in [-2, 2] N m, in the order of the joints.

    Reward, distances (m) before the step: -(object to goal) - 0.1 |action|^2 - 0.5 (object to tip).
    Never ends by itself.

    Args:
        pushable: since MuJoCo 3 the very light object of this model cannot be pushed. True restores the
            contacts of earlier versions with the engine's `diagexact` flag; False keeps the model as shipped.
        kwargs: of `MuJoCoTask`.
    """

    model_file = "pusher.xml"
    frame_skip = 5
    derived_fields = ("xpos",)
    max_episode_steps = 100
    reward_threshold = 0.0
    camera_distance = 4.0
    observation_size = 23

    def __init__(self, pushable: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if pushable:
            import mujoco

            self.model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_DIAGEXACT)

    def observation(self, fields: Fields) -> Array:
        positions = fields.xpos[:, [10, 11, 12]].reshape(len(fields.qpos), -1)  # [N, 9], tip, object, goal
        return np.concatenate([fields.qpos[:, :7], fields.qvel[:, :7], positions], axis=1)  # [N, 23]

    def measure(self, fields: Fields) -> Array:
        tip, thing, goal = fields.xpos[:, 10], fields.xpos[:, 11], fields.xpos[:, 12]  # [N, 3] each
        return np.stack([thing - goal, thing - tip], axis=1)  # [N, 2, 3]

    def reward_terms(
        self, fields: Fields, observation: Array, action: Array, before: Array, after: Array
    ) -> dict[str, Array]:
        return {
            "reward_dist": -np.linalg.norm(before[:, 0], axis=1),
            "reward_ctrl": 0.1 * -row_sums(np.square(action)),
            "reward_near": 0.5 * -np.linalg.norm(before[:, 1], axis=1),
        }

    def initial_state(self, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = self.model.qpos0.copy()
        while True:
            offset = np.concatenate([rng.uniform(-0.3, 0, size=1), rng.uniform(-0.2, 0.2, size=1)])  # y, x
            if np.linalg.norm(offset) > 0.17:
                break
        qpos[-4:-2] = offset
        qpos[-2:] = 0
        qvel = self.uniform(rng, self.model.nv, 0.005)
        qvel[-4:] = 0
        return qpos, qvel
