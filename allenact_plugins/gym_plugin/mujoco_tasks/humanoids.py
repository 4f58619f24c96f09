"""Two tasks for the same humanoid robot: walking, and standing up."""

# ruff: noqa: D102  (what each method returns is documented on MuJoCoTask)
from __future__ import annotations

import numpy as np
import numpy.typing as npt

from allenact_plugins.gym_plugin.mujoco_tasks.base import Array, Fields, MuJoCoTask, row_sums


class _HumanoidRobot(MuJoCoTask):
    """Observation, costs and start that both humanoid tasks share."""

    frame_skip = 5
    derived_fields = ("xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")
    observes_contact_forces = True
    observation_size = 376

    def observation(self, fields: Fields) -> Array:
        n = len(fields.qpos)
        parts = [
            fields.qpos[:, 2:],  # [N, 22]
            fields.qvel,  # [N, 23]
            fields.cinert.reshape(n, -1),  # [N, 140]
            fields.cvel.reshape(n, -1),  # [N, 84]
            fields.qfrc_actuator,  # [N, 23]
            fields.cfrc_ext.reshape(n, -1),  # [N, 84]
        ]
        return np.concatenate(parts, axis=1)  # [N, 376]

    def control_cost(self, fields: Fields) -> Array:
        """[N] charged on the control as it was given, also where it exceeds the range of the motors."""
        return 0.1 * row_sums(np.square(fields.ctrl))

    def impact_cost(self, fields: Fields) -> Array:
        """[N] at most 10."""
        return np.minimum(0.5e-6 * np.square(fields.cfrc_ext).sum(axis=(1, 2)), 10)

    def initial_state(self, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = self.model.qpos0 + self.uniform(rng, self.model.nq, 0.01)
        return qpos, self.uniform(rng, self.model.nv, 0.01)


class Humanoid(_HumanoidRobot):
    """A robot with two legs and two arms learns to walk in the direction of +x.

    Observation, 376 entries (joints: abdomen z, y, x; hip x, z, y and knee, right then left; shoulder 1, 2
    and elbow, right then left):

    | entries | meaning                                                            | range     | unit       |
    | ------- | ------------------------------------------------------------------ | --------- | ---------- |
    | 0       | height of the torso, 1.4 at rest                                   | -inf, inf | m          |
    | 1:5     | orientation of the torso, quaternion w, x, y, z                    | -inf, inf | 1          |
    | 5:22    | joint angles                                                       | -inf, inf | rad        |
    | 22:25   | linear velocity of the torso, world axes                           | -inf, inf | m/s        |
    | 25:28   | angular velocity of the torso, body axes                           | -inf, inf | rad/s      |
    | 28:45   | joint velocities                                                   | -inf, inf | rad/s      |
    | 45:185  | inertia of each of 14 bodies (world first) about the centre        | -inf, inf | kg m^2, kg |
    | 185:269 | angular and linear velocity of each body                           | -inf, inf | rad/s, m/s |
    | 269:292 | motor torques on the 23 degrees of freedom, the first six always 0 | -inf, inf | N m        |
    | 292:376 | contact torque and force on each body                              | -inf, inf | N m, N     |

    Action, 17 controls in [-0.4, 0.4] (times 25 to 300 N m): abdomen y, z, x, then the joints as above.

    Reward: 1.25 times the velocity of the centre of mass along x (m/s) - 0.1 |action|^2
    - min(5e-7 |contact forces|^2, 10) + 5. Ends when the height leaves [1, 2] m.
    """

    model_file = "humanoid.xml"

    def measure(self, fields: Fields) -> Array:
        mass = self.model.body_mass  # [nbody]
        return (mass * fields.xipos[:, :, 0]).sum(axis=1) / mass.sum()  # [N]

    def reward_terms(
        self, fields: Fields, observation: Array, action: Array, before: Array, after: Array
    ) -> dict[str, Array]:
        return {
            "reward_linvel": 1.25 * (after - before) / self.dt,
            "reward_quadctrl": -self.control_cost(fields),
            "reward_impact": -self.impact_cost(fields),
            "reward_alive": np.full(len(action), 5.0),
        }

    def terminated(self, fields: Fields) -> npt.NDArray[np.bool_]:
        height = fields.qpos[:, 2]  # [N]
        return (height < 1.0) | (height > 2.0)


class HumanoidStandup(_HumanoidRobot):
    """The robot of `Humanoid` lies on the floor and learns to stand up.

    Observation (376) and action (17) are those of `Humanoid`.

    Reward: height (m) per substep (0.003 s) - 0.1 |action|^2 - min(5e-7 |contact forces|^2, 10) + 1.
    Never ends by itself.
    """

    model_file = "humanoidstandup.xml"

    def reward_terms(
        self, fields: Fields, observation: Array, action: Array, before: Array, after: Array
    ) -> dict[str, Array]:
        return {
            "reward_linup": fields.qpos[:, 2] / self.timestep,
            "reward_quadctrl": -self.control_cost(fields),
            "reward_impact": -self.impact_cost(fields),
            "reward_alive": np.ones(len(action)),
        }
