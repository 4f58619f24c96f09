"""The `-v2` MuJoCo tasks as Gymnasium environments; importing this module registers them."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import gymnasium
import numpy as np

from allenact_plugins.gym_plugin.drawn_view import DrawnView
from allenact_plugins.gym_plugin.mujoco_simulations import MuJoCoSimulations
from allenact_plugins.gym_plugin.mujoco_tasks import MUJOCO_TASKS, MuJoCoTask
from allenact_plugins.gym_plugin.mujoco_tasks.base import Array

TRACKING_CAMERA = "track"  # most models have a camera of this name that follows the robot


@functools.cache
def make_task(task_id: str, **kwargs: Any) -> MuJoCoTask:
    """Returns the task of that id, the same object every time: compiling the model takes milliseconds."""
    return MUJOCO_TASKS[task_id](**kwargs)


class MuJoCoEnv(gymnasium.Env[Array, Any]):
    """One episode after another of a MuJoCo task, in one simulation.

    What is observed, done, paid and ended is documented on the task, e.g. `mujoco_tasks.legged.Ant`. `info`
    holds the terms of the reward by name, and `unstable` (bool): whether the engine met numbers with which it
    could not go on. Such a step ends the episode and pays 0.

    Args:
        task_id: a key of `MUJOCO_TASKS`.
        render_mode: "rgb_array" or None. Nothing is drawn, and no OpenGL loaded, before `render()`.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        shadows: whether `render()` draws shadows and reflections. Without a graphics card they make a picture take five
            times as long (55 instead of 11 ms for an ant).
        kwargs: options of the task, e.g. `contact_forces="zero"`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # type: ignore[misc]  # gymnasium: per instance

    def __init__(
        self,
        task_id: str,
        render_mode: str | None = None,
        width: int = 320,
        height: int = 240,
        shadows: bool = False,
        **kwargs: Any,
    ) -> None:
        self.task_id = task_id
        self.task = make_task(task_id, **kwargs)
        self.render_mode = render_mode
        self.width, self.height, self.shadows = width, height, shadows
        self.metadata = {**MuJoCoEnv.metadata, "render_fps": round(1 / self.task.dt)}  # type: ignore[misc]
        low, high = self.task.model.actuator_ctrlrange.astype(np.float32).T  # [A] each
        if self.task.unit_actions:
            low, high = -np.ones_like(low), np.ones_like(high)
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        shape = (self.task.observation_size,)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, shape, dtype=np.float64)
        self._simulations: MuJoCoSimulations | None = None
        self._index = 0
        self._renderer: Any = None
        self._drawn_view: DrawnView | None = None

    @property
    def simulations(self) -> MuJoCoSimulations:
        """The simulations of which this environment is one; alone until `attach`."""
        if self._simulations is None:
            self._simulations = MuJoCoSimulations(self.task, num_simulations=1)
        return self._simulations

    def attach(self, simulations: MuJoCoSimulations, index: int) -> None:
        """Lets this environment be simulation `index` of a batch. Reset it, or load a state, afterwards."""
        self._simulations, self._index = simulations, index

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Starts an episode; returns the observation [O] float64 and an empty dict."""
        super().reset(seed=seed)
        return self.simulations.reset(self._index, self.np_random), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Takes one environment step; see `gymnasium.Env.step`.

        Without `unit_actions` the action is neither clipped nor scaled.
        """
        step = self.simulations.step([action], [self._index])
        info: dict[str, Any] = {name: float(term[0]) for name, term in step.reward_terms.items()}
        info["unstable"] = bool(step.unstable[0])
        return step.observations[0], float(step.rewards[0]), bool(step.terminated[0]), False, info

    def state_dict(self) -> dict[str, Any]:
        """Returns all that decides the future of this environment."""
        return {
            "simulation": self.simulations.state_dict(self._index),
            "generator": self.np_random.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.simulations.load_state_dict(self._index, state["simulation"])
        self.np_random.bit_generator.state = state["generator"]

    def render(self) -> Any:
        """Returns a picture, [height, width, 3] uint8, or None without `render_mode`.

        Seen through the model's tracking camera where it has one, else by a free camera. Floors never end.

        Raises:
            RenderingUnavailable: MuJoCo cannot draw on this machine.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = self._make_renderer()
        data = self.current_data()
        self._renderer.update_scene(data, camera=self._camera(data))
        keep_floor_below(self._renderer.scene, self.task.model, data.xpos[1])
        return self._renderer.render()  # [height, width, 3]

    def render_without_opengl(self) -> Any:
        """Returns a drawing of the robot's path and joints, [height, width, 3] uint8, where `render` cannot draw.

        It shows what earlier calls in the same episode saw as well.
        """
        if self._drawn_view is None:
            self._drawn_view = DrawnView(self.task.model, self.width, self.height)
        return self._drawn_view.draw(self.current_data())  # [height, width, 3]

    def current_data(self) -> Any:
        """Returns a copy of the simulation, a `mujoco.MjData`, with all positions up to date."""
        return self.simulations.data(self._index)

    def close(self) -> None:
        """Frees the simulation and what it was drawn with."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._simulations = self._drawn_view = None

    def _make_renderer(self) -> Any:
        from allenact.utils.rendering import choose_gl_backend

        choose_gl_backend()
        import mujoco

        buffer = self.task.model.vis.global_  # the largest picture that the model allows
        buffer.offwidth = max(buffer.offwidth, self.width)
        buffer.offheight = max(buffer.offheight, self.height)
        renderer = mujoco.Renderer(self.task.model, height=self.height, width=self.width)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = self.shadows
        return renderer

    def _camera(self, data: Any) -> Any:
        import mujoco

        model = self.task.model
        if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, TRACKING_CAMERA) >= 0:
            return TRACKING_CAMERA
        camera = mujoco.MjvCamera()
        camera.lookat[:] = np.median(data.geom_xpos, axis=0)
        camera.distance = self.task.camera_distance or model.stat.extent
        if self.task.camera_height is not None:
            camera.lookat[2] = self.task.camera_height
        return camera


def keep_floor_below(scene: Any, model: Any, position: Array) -> None:
    """Moves the floors of a scene below a robot by whole tiles, so that they seem to stand still and to have no end.

    To the physics a plane has no end anyway; it is drawn with the size that the model gives, which a trained ant leaves
    within ten seconds. Planes without a pattern stay where they are, because nobody would see the robot move.

    Args:
        scene: `mujoco.MjvScene`, updated.
        model: whose scene it is.
        position: [3] of the robot, metres.
    """
    import mujoco

    for geom in scene.geoms[: scene.ngeom]:
        if geom.objtype != mujoco.mjtObj.mjOBJ_GEOM or geom.type != mujoco.mjtGeom.mjGEOM_PLANE:
            continue
        material, size = model.geom_matid[geom.objid], model.geom_size[geom.objid, :2]
        if material < 0 or model.mat_texuniform[material] or not (size * model.mat_texrepeat[material]).all():
            continue
        tiles = 2 * size / model.mat_texrepeat[material]  # [2] metres, until the pattern repeats
        axes = geom.mat[:, :2]  # [3, 2] of the plane
        geom.pos += axes @ (np.round((position - geom.pos) @ axes / tiles) * tiles)


def register_environments() -> None:
    """Registers the tasks with Gymnasium, whose own entries of these ids only raise an error."""
    for task_id, task in MUJOCO_TASKS.items():
        gymnasium.registry.pop(task_id, None)  # registering over an entry would print a warning
        gymnasium.register(
            id=task_id,
            entry_point=f"{MuJoCoEnv.__module__}:{MuJoCoEnv.__name__}",
            kwargs={"task_id": task_id},
            max_episode_steps=task.max_episode_steps,
            reward_threshold=task.reward_threshold,
            disable_env_checker=True,
        )


register_environments()
