"""What a MuJoCo task consists of: a model, and what is observed, what is paid and when an episode ends."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from allenact.errors import ExperimentConfigError, did_you_mean

if TYPE_CHECKING:
    import mujoco

Array: TypeAlias = npt.NDArray[np.float64]

CONTACT_FORCES = ("live", "zero")


class Fields:
    """Fields of `mujoco.MjData` for N simulations, under their MuJoCo names and with a leading axis [N].

    After a step `qpos` and `qvel` describe the new state. The derived fields are what `mj_step` left behind:
    those of the last Runge-Kutta stage (RK4 models) or of the state before the last substep (Euler models).
    The rewards of these tasks are defined by exactly these values, so nothing is recomputed.
    """

    qpos: Array  # [N, nq]
    qvel: Array  # [N, nv]
    ctrl: Array  # [N, nu], as given, not clamped
    xpos: Array  # [N, nbody, 3]
    xipos: Array  # [N, nbody, 3]
    site_xpos: Array  # [N, nsite, 3]
    cinert: Array  # [N, nbody, 10]
    cvel: Array  # [N, nbody, 6]
    cfrc_ext: Array  # [N, nbody, 6]
    qfrc_actuator: Array  # [N, nv]
    qfrc_constraint: Array  # [N, nv]

    def __init__(self, **arrays: Array) -> None:
        self.__dict__.update(arrays)

    def rows(self, ids: Sequence[int] | npt.NDArray[np.intp] | slice) -> Fields:
        """Returns copies of the rows `ids` of every field."""
        return Fields(**{name: array[ids] for name, array in self.__dict__.items()})


class MuJoCoTask:
    """One task: everything that is particular to it, for any number of simulations at once.

    The methods are pure functions of arrays with a leading axis [N]. Sums are written in the order of the
    original tasks, because the order decides the last bits. Actions are float64 and, unless `unit_actions` asks
    for it, not clipped: MuJoCo clamps what reaches the motors to their control range, but control costs see the
    action as given.

    Args:
        contact_forces: "live" lets the engine compute the contact forces `cfrc_ext` in every step (through
            one force sensor that is added to the model and changes nothing else); "zero" shows zeros, as
            mujoco-py did with MuJoCo 2. Only tasks with `observes_contact_forces` look at them.
        unit_actions: actions are clipped to [-1, 1] and that range is stretched to the control range of the
            motors, before the physics and the control costs see them.
        xml_file: another model: a path, or the name of a file among Gymnasium's MuJoCo assets.

    Raises:
        ExperimentConfigError: an argument has no meaning here, or the file does not exist.
    """

    model_file: ClassVar[str]  # among Gymnasium's MuJoCo assets
    frame_skip: ClassVar[int]  # physics substeps per environment step
    derived_fields: ClassVar[tuple[str, ...]] = ()  # fields to refresh after each step, besides the state
    observes_contact_forces: ClassVar[bool] = False
    max_episode_steps: ClassVar[int] = 1000  # environment steps
    reward_threshold: ClassVar[float | None] = None  # return at which the task counts as solved
    camera_distance: ClassVar[float | None] = None  # of the free camera, metres; None: the model's extent
    camera_height: ClassVar[float | None] = None  # of what it looks at, metres; None: median of the geoms
    observation_size: int

    def __init__(self, contact_forces: str = "live", xml_file: str | None = None, unit_actions: bool = False) -> None:
        if contact_forces not in CONTACT_FORCES:
            raise ExperimentConfigError(
                f'contact_forces cannot be "{contact_forces}".',
                given=f'contact_forces="{contact_forces}"',
                do=did_you_mean(str(contact_forces), CONTACT_FORCES) or 'use "live" or "zero"',
            )
        self.contact_forces = contact_forces
        self.unit_actions = unit_actions
        self.model = self._compile(_model_path(xml_file or self.model_file))
        self.timestep: float = self.model.opt.timestep  # seconds per substep
        self.dt: float = self.timestep * self.frame_skip  # seconds per environment step
        if xml_file is not None:
            self.observation_size = self.observation(self._zero_fields()).shape[1]

    # What a subclass defines

    def observation(self, fields: Fields) -> Array:
        """[N, observation_size] float64."""
        raise NotImplementedError

    def measure(self, fields: Fields) -> Array:
        """[N, ...] what the reward compares: `reward_terms` is given it from before and after the step."""
        return np.zeros(len(fields.qpos))

    def reward_terms(
        self, fields: Fields, observation: Array, action: Array, before: Array, after: Array
    ) -> dict[str, Array]:
        """The terms of the reward by name, [N] each, to be added in this order.

        Args:
            fields: after the step.
            observation: [N, observation_size] made of these fields.
            action: [N, A] as given.
            before: what `measure` returned before the step.
            after: what it returns now.
        """
        raise NotImplementedError

    def terminated(self, fields: Fields) -> npt.NDArray[np.bool_]:
        """[N] whether the task ended by itself (never, unless a task says otherwise)."""
        return np.zeros(len(fields.qpos), dtype=bool)

    def initial_state(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draws the start of one episode: qpos [nq] and qvel [nv], in this order."""
        raise NotImplementedError

    # What they share

    def uniform(self, rng: np.random.Generator, size: int, scale: float) -> Array:
        """[size] uniform draws from [-scale, scale)."""
        return rng.uniform(low=-scale, high=scale, size=size)

    def controls(self, actions: Array) -> Array:
        """Returns what physics and reward see of `actions`, [N, A] float64."""
        if not self.unit_actions:
            return actions
        low, high = self.model.actuator_ctrlrange.T  # [A] each
        return np.clip(actions, -1.0, 1.0) * ((high - low) / 2) + (high + low) / 2  # [N, A]

    def _compile(self, path: Path) -> mujoco.MjModel:
        import mujoco

        spec = mujoco.MjSpec.from_file(str(path))
        if self.observes_contact_forces and self.contact_forces == "live":
            _add_force_sensor(spec, mujoco)
        with warnings.catch_warnings():  # half_cheetah.xml uses an attribute that MuJoCo 4 calls deprecated
            warnings.filterwarnings("ignore", message=".*'settotalmass' is deprecated", category=UserWarning)
            return spec.compile()

    def _zero_fields(self) -> Fields:
        import mujoco

        data = mujoco.MjData(self.model)
        names = ("qpos", "qvel", "ctrl", *self.derived_fields)
        return Fields(**{name: np.zeros((1, *getattr(data, name).shape)) for name in names})


def row_sums(array: Array) -> Array:
    """[N] sums over the last axis: `array.sum(axis=-1)` without its two layers of Python."""
    sums: Array = np.add.reduce(array, axis=-1)  # [N]
    return sums


def _add_force_sensor(spec: Any, mujoco: Any) -> None:
    """Adds a force sensor on the root body, because MuJoCo computes `cfrc_ext` only if a sensor needs it."""
    root = spec.worldbody.first_body()
    root.add_site(name="contact_force_trigger")
    spec.add_sensor(
        name="contact_force_trigger",
        type=mujoco.mjtSensor.mjSENS_FORCE,
        objtype=mujoco.mjtObj.mjOBJ_SITE,
        objname="contact_force_trigger",
    )


def _model_path(name: str) -> Path:
    import gymnasium.envs

    given = Path(name).expanduser()
    assets = Path(gymnasium.envs.__file__).parent / "mujoco" / "assets"
    for path in (given, assets / name):
        if path.is_file():
            return path
    raise ExperimentConfigError(
        f'there is no MuJoCo model "{name}".',
        given=f'xml_file="{name}"',
        do=did_you_mean(name, [path.name for path in assets.glob("*.xml")]) or "give the path of an XML file",
    )
