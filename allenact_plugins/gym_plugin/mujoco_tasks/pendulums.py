"""Poles on a cart that are to be kept upright."""

# ruff: noqa: D102  (what each method returns is documented on MuJoCoTask)
from __future__ import annotations

import numpy as np
import numpy.typing as npt

from allenact_plugins.gym_plugin.mujoco_tasks.base import Array, Fields, MuJoCoTask


class InvertedPendulum(MuJoCoTask):
    """A cart balances a pole.

    Observation, 4 entries:

    | entries | meaning                      | range     | unit  |
    | ------- | ---------------------------- | --------- | ----- |
    | 0       | position of the cart         | -inf, inf | m     |
    | 1       | angle of the pole, 0 upright | -inf, inf | rad   |
    | 2       | velocity of the cart         | -inf, inf | m/s   |
    | 3       | angular velocity of the pole | -inf, inf | rad/s |

    Action, 1 force on the cart in [-3, 3] (times 100 N).

    Reward: 1, on the last step too.
    Ends when the pole leans by more than 0.2 rad or the observation is not finite.
    """

    model_file = "inverted_pendulum.xml"
    frame_skip = 2
    reward_threshold = 950.0
    observation_size = 4

    def observation(self, fields: Fields) -> Array:
        return np.concatenate([fields.qpos, fields.qvel], axis=1)  # [N, 4]

    def reward_terms(
        self, fields: Fields, observation: Array, action: Array, before: Array, after: Array
    ) -> dict[str, Array]:
        return {"reward_survive": np.ones(len(action))}

    def terminated(self, fields: Fields) -> npt.NDArray[np.bool_]:
        finite = np.isfinite(self.observation(fields)).all(axis=1)  # [N]
        return ~(finite & (np.abs(fields.qpos[:, 1]) <= 0.2))

    def initial_state(self, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = self.model.qpos0 + self.uniform(rng, self.model.nq, 0.01)
        return qpos, self.uniform(rng, self.model.nv, 0.01)


class InvertedDoublePendulum(MuJoCoTask):
    """A cart balances two poles, one on top of the other.

    Observation, 11 entries:

    | entries | meaning                                                             | range     | unit       |
    | ------- | ------------------------------------------------------------------- | --------- | ---------- |
    | 0       | position of the cart                                                | -inf, inf | m          |
    | 1:3     | sine of the angles: first pole, second pole relative to the first   | -1, 1     | 1          |
    | 3:5     | cosine of the same                                                  | -1, 1     | 1          |
    | 5       | velocity of the cart, clipped                                       | -10, 10   | m/s        |
    | 6:8     | angular velocities, clipped                                         | -10, 10   | rad/s      |
    | 8:11    | constraint forces, clipped; only the first (cart limit) can act     | -10, 10   | N, N m     |

    Action, 1 force on the cart in [-1, 1] (times 500 N).

    Reward, with x, y of the tip (m) and the angular velocities v1, v2 (rad/s):
    10 - (0.01 x^2 + (y - 2)^2) - (0.001 v1^2 + 0.005 v2^2), on the last step too. Ends when y <= 1.
    """

    model_file = "inverted_double_pendulum.xml"
    frame_skip = 5
    derived_fields = ("site_xpos", "qfrc_constraint")
    reward_threshold = 9100.0
    camera_distance = 4.1225
    camera_height = 0.1225
    observation_size = 11

    def observation(self, fields: Fields) -> Array:
        angles = fields.qpos[:, 1:]
        velocities = np.clip(fields.qvel, -10, 10)
        forces = np.clip(fields.qfrc_constraint, -10, 10)
        parts = [fields.qpos[:, :1], np.sin(angles), np.cos(angles), velocities, forces]
        return np.concatenate(parts, axis=1)  # [N, 11]

    def reward_terms(
        self, fields: Fields, observation: Array, action: Array, before: Array, after: Array
    ) -> dict[str, Array]:
        x, y = fields.site_xpos[:, 0, 0], fields.site_xpos[:, 0, 2]  # [N] each
        v1, v2 = fields.qvel[:, 1], fields.qvel[:, 2]  # [N] each
        return {
            "reward_survive": np.full(len(action), 10.0),
            "reward_dist": -(0.01 * x**2 + (y - 2) ** 2),
            "reward_vel": -(1e-3 * v1**2 + 5e-3 * v2**2),
        }

    def terminated(self, fields: Fields) -> npt.NDArray[np.bool_]:
        return fields.site_xpos[:, 0, 2] <= 1

    def initial_state(self, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = self.model.qpos0 + self.uniform(rng, self.model.nq, 0.1)
        return qpos, 0.1 * rng.standard_normal(self.model.nv)
