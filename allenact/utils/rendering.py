"""Finds an OpenGL back end with which MuJoCo can draw on this machine without a display.

MuJoCo draws through EGL, OSMesa or GLFW, decides which from `MUJOCO_GL` when it is first imported, and fails
with a different obscure error for each one that is missing. `choose_gl_backend` tries them in child processes
(a broken driver may kill the process that loads it), activates the first that really draws, and remembers the
answer.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

from allenact.errors import RunError

BACKEND_VARIABLE = "ALLENACT_GL_BACKEND"
"""Environment variable holding the answer, so that this process and its children probe only once."""

NATIVE = "native"
"""The answer on systems other than Linux, where MuJoCo needs no help to draw off screen."""

DEBIAN_PACKAGES = "libegl1 libgl1-mesa-dri libosmesa6"

PROBE_TIMEOUT_S = 60.0

_GL_VARIABLES = ("MUJOCO_GL", "PYOPENGL_PLATFORM")
_NONE_WORKS = "none"
_DISABLED = (
    "disable",
    "disabled",
    "off",
    "false",
    "0",
)  # values of MUJOCO_GL with which mujoco draws nothing

_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom size="1" rgba="1 0 0 1"/></worldbody></mujoco>'
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data)
    image = renderer.render()
if image.min() == image.max():
    raise RuntimeError("the picture is empty")
"""


class RenderingUnavailable(RunError):  # noqa: N818  a state of the machine that callers are expected to handle
    """No OpenGL back end works here, so MuJoCo cannot draw. Everything else can go on."""


def choose_gl_backend() -> str:
    """Makes sure that the next `mujoco.Renderer` can be created, with or without a display.

    The first call tries EGL, OSMesa and, if there is a display, GLFW, each in a child process (about a second
    each); a `MUJOCO_GL` that is already set restricts the choice to it. The answer is kept in the environment
    of this process, and so reaches the processes it starts. Call it before every renderer: only the first one
    takes time.

    Returns:
        `"egl"`, `"osmesa"`, `"glfw"` or `NATIVE`.

    Raises:
        RenderingUnavailable: no back end draws; the message says what each one answered and what to install.
    """
    if sys.platform != "linux":
        return NATIVE
    answer = os.environ.get(BACKEND_VARIABLE)
    if not answer:
        answer = os.environ[BACKEND_VARIABLE] = _first_that_draws()
    backend, _, failures = answer.partition(":")
    if backend == _NONE_WORKS:
        raise RenderingUnavailable(
            "MuJoCo cannot draw on this machine: no OpenGL back end works.",
            given=failures.strip(),
            do=f"apt-get install -y {DEBIAN_PACKAGES} (no display needed); everything else works without.",
        )
    _activate(backend)
    return backend


def known_gl_variables() -> dict[str, str]:
    """Returns the environment variables that tell another process what has been found out here; empty: nothing yet."""
    if BACKEND_VARIABLE not in os.environ:
        return {}
    return {name: os.environ[name] for name in (BACKEND_VARIABLE, *_GL_VARIABLES) if name in os.environ}


def probe_gl_backend(backend: str) -> str | None:
    """Draws one picture in a child process.

    Returns:
        None if the picture is there, else the reason, in one line.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=_environment_for(backend),
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"no picture within {PROBE_TIMEOUT_S:g} seconds"
    if child.returncode == 0:
        return None
    last_words = child.stderr.strip().splitlines()[-1:] or ["no message"]
    return f"{last_words[0]} (exit status {child.returncode})"


def _first_that_draws() -> str:
    """Returns the name of a back end, or `none: ` and what each candidate answered."""
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    if wanted in _DISABLED:
        return f"{_NONE_WORKS}: MUJOCO_GL={wanted} switches drawing off"
    failures = []
    for backend in (wanted,) if wanted in ("egl", "osmesa", "glfw") else ("egl", "osmesa", "glfw"):
        if backend == "glfw" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            failures.append("glfw: there is no display")
            continue
        failure = probe_gl_backend(backend)
        if failure is None:
            return backend
        failures.append(f"{backend}: {failure}")
    return f"{_NONE_WORKS}: {'; '.join(failures)}"


def _environment_for(backend: str) -> dict[str, str]:
    """Returns our environment with the variables that select `backend` in MuJoCo and in PyOpenGL."""
    environment = {name: value for name, value in os.environ.items() if name != "PYOPENGL_PLATFORM"}
    environment["MUJOCO_GL"] = backend
    if backend != "glfw":  # GLFW does not go through PyOpenGL
        environment["PYOPENGL_PLATFORM"] = backend
    return environment


def _activate(backend: str) -> None:
    """Selects `backend` for this process, also if mujoco has been imported already."""
    for name in _GL_VARIABLES:
        value = _environment_for(backend).get(name)
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if "mujoco" in sys.modules:
        # MuJoCo chose its context class when it was imported; the physics usually comes long before the first
        # picture, so the choice is replaced where mujoco.Renderer looks it up.
        gl_context = importlib.import_module("mujoco.rendering.classic.gl_context")
        gl_context.GLContext = importlib.import_module(f"mujoco.{backend}").GLContext  # type: ignore[attr-defined]  # set by name
