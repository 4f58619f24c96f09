"""What a MuJoCo task looks like where OpenGL is missing: a stick figure on its path, and its joints over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import mujoco

TRACE_LENGTH = 100  # pictures whose joint positions are shown


class DrawnView:
    """Draws one episode after the other with matplotlib, about 30 ms a picture.

    On the left the robot's geoms as thick lines, with the path of its torso, from above or, where all hinges turn about
    y, from the side. On the right the angles of its joints in the last steps.

    Args:
        model: what is drawn.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        import mujoco

        hinges = model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE
        is_planar = bool(hinges.any()) and bool(np.allclose(np.abs(model.jnt_axis[hinges, 1]), 1.0))
        self.axes_shown = [0, 2] if is_planar else [0, 1]  # of the world: x and z, or x and y
        self.joints = model.jnt_qposadr[hinges]  # addresses in qpos
        self.geoms = np.flatnonzero(model.geom_bodyid > 0)  # [G], without what stands still
        is_long = np.isin(model.geom_type, (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER))
        self.half_lengths = np.where(is_long, model.geom_size[:, 1], 0.0)[self.geoms]  # [G] metres
        self.thickness = model.geom_size[self.geoms, 0]  # [G] metres
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        distances = np.linalg.norm(data.geom_xpos[self.geoms] - data.xpos[1], axis=1)  # [G]
        self.extent = 1.2 * float((distances + self.half_lengths + self.thickness).max())  # metres
        self.size = (width, height)
        self._figure: Any = None
        self._forget()

    def _forget(self) -> None:
        self._time = -1.0
        self._path: list[np.ndarray] = []  # [2] each
        self._positions: list[np.ndarray] = []  # [joints] each

    def draw(self, data: mujoco.MjData) -> np.ndarray:
        """Returns a picture of the current state, [H, W, 3] uint8; earlier time than before begins a new episode."""
        from allenact.viz.base import figure_to_image

        if data.time < self._time:
            self._forget()
        if data.time > self._time:
            self._time = data.time
            self._path.append(data.xpos[1, self.axes_shown].copy())
            self._positions.append(data.qpos[self.joints].copy())
        if self._figure is None:
            self._make_figure()
        self._update(data)
        return figure_to_image(self._figure)

    def _make_figure(self) -> None:
        from matplotlib.collections import LineCollection
        from matplotlib.figure import Figure

        width, height = self.size
        self._figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        self._view, self._traces = self._figure.subplots(1, 2)
        self._figure.subplots_adjust(left=0.1, right=0.99, bottom=0.1, top=0.9, wspace=0.25)
        for axes, title in ((self._view, f"{'xyz'[self.axes_shown[1]]} over x, metres"), (self._traces, "joints, rad")):
            axes.set_title(title, fontsize=6)
            axes.tick_params(labelsize=5, length=2, pad=1)
            axes.locator_params(nbins=4)
            axes.grid(linewidth=0.3)
        self._view.set_aspect("equal")
        (self._path_line,) = self._view.plot([], [], color="tab:orange", linewidth=1)
        pixels = 0.43 * self.size[0] / (2 * self.extent)  # of the view, per metre
        widths = np.maximum(2 * self.thickness * pixels * 0.72, 1.0)  # [G] in points, of which 72 are 100 pixels
        self._robot = self._view.add_collection(
            LineCollection([], colors="dimgrey", linewidths=widths, capstyle="round")
        )
        self._joint_lines = [self._traces.plot([], [], linewidth=0.8)[0] for _ in self.joints]

    def _update(self, data: mujoco.MjData) -> None:
        """Shows the state, with the torso in the middle."""
        self._path_line.set_data(*np.array(self._path).T)
        centres = data.geom_xpos[self.geoms]  # [G, 3]
        arms = data.geom_xmat[self.geoms, 2::3] * self.half_lengths[:, None]  # [G, 3] along the geoms' own z
        ends = np.stack([centres - arms, centres + arms + 1e-6], axis=1)  # [G, 2, 3]
        self._robot.set_segments(list(ends[..., self.axes_shown]))
        x, y = self._path[-1]
        self._view.set_xlim(x - self.extent, x + self.extent)
        self._view.set_ylim(y - self.extent, y + self.extent)
        recent = np.array(self._positions[-TRACE_LENGTH:])  # [T, joints]
        first = len(self._positions) - len(recent)
        for line, values in zip(self._joint_lines, recent.T, strict=True):
            line.set_data(np.arange(first, first + len(values)), values)
        self._traces.set_xlim(first, first + TRACE_LENGTH)
        if recent.size:
            self._traces.set_ylim(recent.min() - 0.1, recent.max() + 0.1)
