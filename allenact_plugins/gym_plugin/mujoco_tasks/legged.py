"""Robots that walk, run, hop or swim, except the humanoids."""

# ruff: noqa: D102  (what each method returns is documented on MuJoCoTask)
from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from allenact_plugins.gym_plugin.mujoco_tasks.base import Array, Fields, MuJoCoTask, row_sums


class Ant(MuJoCoTask):
    """A four-legged robot learns to walk in the direction of +x.

    Observation, 111 entries:

    | entries | meaning                                                        | range     | unit     |
    | ------- | -------------------------------------------------------------- | --------- | -------- |
    | 0       | height of the torso                                            | -inf, inf | m        |
    | 1:5     | orientation of the torso, quaternion w, x, y, z                | -inf, inf | 1        |
    | 5:13    | joint angles hip_1, ankle_1, ..., hip_4, ankle_4               | -inf, inf | rad      |
    | 13:16   | linear velocity of the torso, world axes                       | -inf, inf | m/s      |
    | 16:19   | angular velocity of the torso, body axes                       | -inf, inf | rad/s    |
    | 19:27   | joint velocities, in the order of 5:13                         | -inf, inf | rad/s    |
    | 27:111  | contact torque and force on each of 14 bodies, world first     | -1, 1     | N m, N   |

    Action, 8 torques in [-1, 1] (times 150 N m): hip_4, ankle_4, hip_1, ankle_1, hip_2, ankle_2, hip_3,
    ankle_3 (not the order of the joints).

    Reward: torso velocity along x (m/s) - 0.5 |action|^2 - 0.0005 |clipped contact forces|^2 + 1.
    Ends when the state is not finite or the torso is lower than 0.2 m or higher than 1 m.
    """

    model_file = "ant.xml"
    frame_skip = 5
    derived_fields = ("xpos", "cfrc_ext")
    observes_contact_forces = True
    reward_threshold = 6000.0
    observation_size = 111

    def observation(self, fields: Fields) -> Array:
        contact = np.minimum(np.maximum(fields.cfrc_ext, -1.0), 1.0).reshape(len(fields.qpos), -1)  # [N, 84]
        return np.concatenate([fields.qpos[:, 2:], fields.qvel, contact], axis=1)  # [N, 111]

    def measure(self, fields: Fields) -> Array:
        return fields.xpos[:, 1, 0].copy()  # [N], x of the torso; not qpos[0], which is one substep ahead

    def reward_terms(
        self, fields: Fields, observation: Array, action: Array, before: Array, after: Array
    ) -> dict[str, Array]:
        contact = observation[:, self.model.nq - 2 + self.model.nv :]  # [N, 84] clipped, as observed
        return {
            "reward_forward": (after - before) / self.dt,
            "reward_ctrl": -0.5 * row_sums(np.square(action)),
            "reward_contact": -0.5 * 1e-3 * row_sums(np.square(contact)),
            "reward_survive": np.ones(len(action)),
        }

    def terminated(self, fields: Fields) -> npt.NDArray[np.bool_]:
        height = fields.qpos[:, 2]  # [N]
        alive = (height >= 0.2) & (height <= 1.0)  # [N]
        # The engine keeps positions and velocities below 1e10, so a sum is finite if all of them are.
        if not math.isfinite(np.add.reduce(fields.qpos, axis=None) + np.add.reduce(fields.qvel, axis=None)):
            alive &= np.isfinite(row_sums(fields.qpos) + row_sums(fields.qvel))
        return ~alive

    def initial_state(self, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = self.model.qpos0 + self.uniform(rng, self.model.nq, 0.1)
        return qpos, 0.1 * rng.standard_normal(self.model.nv)


class HalfCheetah(MuJoCoTask):
    """A planar robot with two legs learns to run in the direction of +x.

    Observation, 17 entries:

    | entries | meaning                                                          | range     | unit       |
    | ------- | ---------------------------------------------------------------- | --------- | ---------- |
    | 0       | height of the tip of the front                                   | -inf, inf | m          |
    | 1       | pitch                                                            | -inf, inf | rad        |
    | 2:8     | joint angles bthigh, bshin, bfoot, fthigh, fshin, ffoot          | -inf, inf | rad        |
    | 8:10    | velocity along x and z                                           | -inf, inf | m/s        |
    | 10:17   | velocities of pitch and joints, in the order of 1:8              | -inf, inf | rad/s      |

    Action, 6 torques in [-1, 1] (times 120, 90, 60, 120, 60, 30 N m), in the order of the joints.

    Reward: velocity along x (m/s) - 0.1 |action|^2. Never ends by itself.
    """

    model_file = "half_cheetah.xml"
    frame_skip = 5
    reward_threshold = 4800.0
    observation_size = 17

    def observation(self, fields: Fields) -> Array:
        return np.concatenate([fields.qpos[:, 1:], fields.qvel], axis=1)  # [N, 17]

    def measure(self, fields: Fields) -> Array:
        return fields.qpos[:, 0].copy()  # [N]

    def reward_terms(
        self, fields: Fields, observation: Array, action: Array, before: Array, after: Array
    ) -> dict[str, Array]:
        return {
            "reward_ctrl": -0.1 * row_sums(np.square(action)),
            "reward_run": (after - before) / self.dt,
        }

    def initial_state(self, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = self.model.qpos0 + self.uniform(rng, self.model.nq, 0.1)
        return qpos, 0.1 * rng.standard_normal(self.model.nv)


class Hopper(MuJoCoTask):
    """A planar robot with one leg learns to hop in the direction of +x without falling.

    Observation, 11 entries:

    | entries | meaning                                                 | range     | unit       |
    | ------- | ------------------------------------------------------- | --------- | ---------- |
    | 0       | height of the torso, 1.25 at rest                       | -inf, inf | m          |
    | 1       | pitch                                                   | -inf, inf | rad        |
    | 2:5     | joint angles thigh, leg, foot                           | -inf, inf | rad        |
    | 5:7     | velocity along x and z, clipped                         | -10, 10   | m/s        |
    | 7:11    | velocities of pitch and joints, clipped                 | -10, 10   | rad/s      |

    Action, 3 torques in [-1, 1] (times 200 N m): thigh, leg, foot.

    Reward: velocity along x (m/s) + 1 - 0.001 |action|^2, on the last step too.
    Ends unless the state is finite, all velocities and all positions but x and height are within 100, the
    height is above 0.7 m and the pitch within 0.2 rad.
    """

    model_file = "hopper.xml"
    frame_skip = 4
    reward_threshold = 3800.0
    observation_size = 11

    def observation(self, fields: Fields) -> Array:
        return np.concatenate([fields.qpos[:, 1:], np.clip(fields.qvel, -10, 10)], axis=1)  # [N, 11]

    def measure(self, fields: Fields) -> Array:
        return fields.qpos[:, 0].copy()  # [N]

    def reward_terms(
        self, fields: Fields, observation: Array, action: Array, before: Array, after: Array
    ) -> dict[str, Array]:
        return {
            "reward_forward": (after - before) / self.dt,
            "reward_survive": np.ones(len(action)),
            "reward_ctrl": -(1e-3 * row_sums(np.square(action))),
        }

    def terminated(self, fields: Fields) -> npt.NDArray[np.bool_]:
        qpos, qvel = fields.qpos, fields.qvel
        finite = np.isfinite(qpos).all(axis=1) & np.isfinite(qvel).all(axis=1)  # [N]
        bounded = (np.abs(qpos[:, 2:]) < 100).all(axis=1) & (np.abs(qvel) < 100).all(axis=1)  # [N]
        return ~(finite & bounded & (qpos[:, 1] > 0.7) & (np.abs(qpos[:, 2]) < 0.2))

    def initial_state(self, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = self.model.qpos0 + self.uniform(rng, self.model.nq, 0.005)
        return qpos, self.uniform(rng, self.model.nv, 0.005)


class Walker2d(MuJoCoTask):
    """A planar robot with two legs learns to walk in the direction of +x without falling.

    Observation, 17 entries:

    | entries | meaning                                                             | range     | unit  |
    | ------- | ------------------------------------------------------------------- | --------- | ----- |
    | 0       | height of the torso, 1.25 at rest                                   | -inf, inf | m     |
    | 1       | pitch                                                               | -inf, inf | rad   |
    | 2:8     | joint angles thigh, leg, foot (right), then the same (left)         | -inf, inf | rad   |
    | 8:10    | velocity along x and z, clipped                                     | -10, 10   | m/s   |
    | 10:17   | velocities of pitch and joints, clipped                             | -10, 10   | rad/s |

    Action, 6 torques in [-1, 1] (times 100 N m), in the order of the joints.

    Reward: velocity along x (m/s) + 1 - 0.001 |action|^2, on the last step too.
    Ends unless the height is between 0.8 and 2 m and the pitch between -1 and 1 rad.
    """

    model_file = "walker2d.xml"  # not walker2d_v5.xml, whose right foot has another friction
    frame_skip = 4
    observation_size = 17

    def observation(self, fields: Fields) -> Array:
        return np.concatenate([fields.qpos[:, 1:], np.clip(fields.qvel, -10, 10)], axis=1)  # [N, 17]

    def measure(self, fields: Fields) -> Array:
        return fields.qpos[:, 0].copy()  # [N]

    def reward_terms(
        self, fields: Fields, observation: Array, action: Array, before: Array, after: Array
    ) -> dict[str, Array]:
        return {
            "reward_forward": (after - before) / self.dt,
            "reward_survive": np.ones(len(action)),
            "reward_ctrl": -(1e-3 * row_sums(np.square(action))),
        }

    def terminated(self, fields: Fields) -> npt.NDArray[np.bool_]:
        height, pitch = fields.qpos[:, 1], fields.qpos[:, 2]  # [N] each
        return ~((height > 0.8) & (height < 2.0) & (pitch > -1.0) & (pitch < 1.0))

    def initial_state(self, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = self.model.qpos0 + self.uniform(rng, self.model.nq, 0.005)
        return qpos, self.uniform(rng, self.model.nv, 0.005)


class Swimmer(MuJoCoTask):
    """Three links in a viscous fluid learn to swim in the direction of +x.

    Observation, 8 entries:

    | entries | meaning                                          | range     | unit  |
    | ------- | ------------------------------------------------ | --------- | ----- |
    | 0       | angle of the first link                          | -inf, inf | rad   |
    | 1:3     | joint angles motor1, motor2                      | -inf, inf | rad   |
    | 3:5     | velocity of the first link along x and y         | -inf, inf | m/s   |
    | 5:8     | velocities of the angles, in the order of 0:3    | -inf, inf | rad/s |

    Action, 2 torques in [-1, 1] (times 150 N m): motor1, motor2.

    Reward: velocity along x (m/s) - 0.0001 |action|^2. Never ends by itself.
    """

    model_file = "swimmer.xml"
    frame_skip = 4
    reward_threshold = 360.0
    observation_size = 8

    def observation(self, fields: Fields) -> Array:
        return np.concatenate([fields.qpos[:, 2:], fields.qvel], axis=1)  # [N, 8]

    def measure(self, fields: Fields) -> Array:
        return fields.qpos[:, 0].copy()  # [N]

    def reward_terms(
        self, fields: Fields, observation: Array, action: Array, before: Array, after: Array
    ) -> dict[str, Array]:
        return {
            "reward_fwd": (after - before) / self.dt,
            "reward_ctrl": -0.0001 * row_sums(np.square(action)),
        }

    def initial_state(self, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = self.model.qpos0 + self.uniform(rng, self.model.nq, 0.1)
        return qpos, self.uniform(rng, self.model.nv, 0.1)
