"""The choice of an OpenGL back end, with real child processes and without asking for a real driver."""

import os
import subprocess
import sys

import pytest

from allenact.utils import rendering
from allenact.utils.rendering import BACKEND_VARIABLE, RenderingUnavailable, choose_gl_backend

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems need no choice")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    # setenv first: only names that monkeypatch has touched are put back after the test
    for name in (BACKEND_VARIABLE, "MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(rendering, "_PROBE", "pass")
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)


def probe_that_fails_for(*backends: str) -> str:
    return (
        "import os, sys\n"
        f"if os.environ['MUJOCO_GL'] in {backends!r}:\n"
        "    sys.exit('no such library')\n"
        "assert os.environ.get('PYOPENGL_PLATFORM', 'glfw') == os.environ['MUJOCO_GL']\n"
    )


def test_first_back_end_that_draws_is_activated(monkeypatch):
    monkeypatch.setattr(rendering, "_PROBE", probe_that_fails_for("egl"))
    assert choose_gl_backend() == "osmesa"
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == "osmesa"


def test_answer_is_remembered_in_the_environment(monkeypatch):
    assert choose_gl_backend() == "egl"
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("probed twice"))
    assert choose_gl_backend() == "egl"
    assert os.environ[BACKEND_VARIABLE] == "egl"


def test_users_choice_is_the_only_candidate(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(rendering, "_PROBE", probe_that_fails_for("osmesa"))
    with pytest.raises(RenderingUnavailable) as error:
        choose_gl_backend()
    assert "osmesa: no such library" in error.value.given
    assert "egl" not in error.value.given


def test_glfw_is_tried_only_with_a_display(monkeypatch):
    monkeypatch.setattr(rendering, "_PROBE", probe_that_fails_for("egl", "osmesa"))
    with pytest.raises(RenderingUnavailable, match="glfw: there is no display"):
        choose_gl_backend()
    monkeypatch.delenv(BACKEND_VARIABLE)
    monkeypatch.setenv("DISPLAY", ":0")
    assert choose_gl_backend() == "glfw"
    assert "PYOPENGL_PLATFORM" not in os.environ


def test_nothing_works_is_said_at_once_the_second_time(monkeypatch):
    monkeypatch.setattr(rendering, "_PROBE", probe_that_fails_for("egl", "osmesa", "glfw"))
    with pytest.raises(RenderingUnavailable, match="apt-get install -y libegl1"):
        choose_gl_backend()
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("probed twice"))
    with pytest.raises(RenderingUnavailable, match="egl: no such library"):
        choose_gl_backend()
    assert "MUJOCO_GL" not in os.environ  # a back end that does not work would break `import mujoco`


def test_drawing_switched_off_by_the_user(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(RenderingUnavailable, match="MUJOCO_GL=disable"):
        choose_gl_backend()


def test_driver_that_kills_its_process_or_hangs_is_survived(monkeypatch):
    monkeypatch.setattr(rendering, "_PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert rendering.probe_gl_backend("egl") == "no message (exit status -11)"
    monkeypatch.setattr(rendering, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(rendering, "PROBE_TIMEOUT_S", 0.2)
    assert rendering.probe_gl_backend("egl") == "no picture within 0.2 seconds"


def test_mujoco_draws_although_it_was_imported_first():
    """The real thing, in a process of its own; skipped where no back end works."""
    pytest.importorskip("mujoco")
    script = (
        "import mujoco\n"
        "from allenact.utils.rendering import RenderingUnavailable, choose_gl_backend\n"
        "try:\n    choose_gl_backend()\n"
        "except RenderingUnavailable as error:\n    print(error); raise SystemExit(77)\n"
        "xml = '<mujoco><worldbody><geom size=\"1\"/></worldbody></mujoco>'\n"
        "model = mujoco.MjModel.from_xml_string(xml)\n"
        "with mujoco.Renderer(model, 8, 8) as renderer:\n    assert renderer.render().shape == (8, 8, 3)\n"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=os.getcwd())
    if child.returncode == 77:
        pytest.skip(child.stdout)
    assert child.returncode == 0, child.stderr
