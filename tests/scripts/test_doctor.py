"""What the doctor finds, and what its exit status says."""

import shutil
from importlib import metadata

import pytest

from allenact.utils import rendering
from allenact.utils.rendering import RenderingUnavailable
from scripts import doctor
from scripts.doctor import BAD, LESS, OK, Finding


@pytest.mark.parametrize(("level", "sentence"), [(OK, "Everything works."), (LESS, "Training"), (BAD, "does not work")])
def test_the_worst_finding_is_the_exit_status(level, sentence, monkeypatch, capsys):
    findings = [Finding(OK, "one", "fine"), Finding(level, "two", "found", "mend it" if level else "")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    assert doctor.main() == level
    said = capsys.readouterr().out
    assert sentence in said.splitlines()[-1]
    assert ("do: mend it" in said) == (level != OK)


def test_this_machine_can_train(monkeypatch):
    monkeypatch.setattr(rendering, "choose_gl_backend", lambda: "egl")
    findings = list(doctor.examine())
    assert {"Python", "torch", "mujoco", "cores", "threads", "OpenGL", "ffmpeg", "disk"} <= {f.what for f in findings}
    assert all(finding.level < BAD for finding in findings), [str(finding) for finding in findings]


def test_no_opengl_is_said_with_the_packages_to_install(monkeypatch):
    def nothing_works():
        raise RenderingUnavailable("no", given="egl: no such library", do="apt-get install -y libosmesa6")

    monkeypatch.setattr(rendering, "choose_gl_backend", nothing_works)
    (finding,) = doctor.check_rendering()
    assert finding.level == LESS
    assert "egl: no such library" in finding.found
    assert "libosmesa6" in finding.do
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert list(doctor.check_rendering()) == [], "without MuJoCo, that is what has to be installed"


def test_missing_packages(monkeypatch):
    def version(name):
        if name in ("torch", "minigrid"):
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    by_name = {finding.what: finding for finding in doctor.check_packages(version)}
    assert by_name["torch"].level == BAD
    assert by_name["minigrid"].level == LESS
    assert "pip install" in by_name["torch"].do
    assert by_name["numpy"] == Finding(OK, "numpy", "1.0")


def test_cores_that_a_container_withholds_are_mentioned(monkeypatch):
    monkeypatch.setattr("allenact.utils.cores.usable_cores", lambda: 3)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    cores = next(doctor.check_cores())
    assert cores.found.startswith("3 of 64")


def test_little_disk_space(monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10**8))
    (finding,) = doctor.check_disk(tmp_path)
    assert finding.level == LESS
    assert "0.1 GB free" in finding.found


def test_a_check_that_fails_is_a_finding():
    def broken():
        raise ZeroDivisionError("oh no")
        yield

    (finding,) = doctor.examine([broken])
    assert (finding.level, finding.what) == (BAD, "broken")
    assert "oh no" in finding.found
