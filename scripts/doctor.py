"""Says what this machine can do with allenact, and what to install for the rest.

    python scripts/doctor.py

Exit status: 0 everything works; 1 training works and something else does not, for instance pictures; 2 training does
not work. Nothing is changed or written.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

OK, LESS, BAD = 0, 1, 2
MARKS = {OK: "ok  ", LESS: "less", BAD: "BAD "}

NEEDED = ("torch", "numpy", "gymnasium", "mujoco", "tensorboard", "rich", "filelock", "pillow", "matplotlib")
OPTIONAL = {
    "imageio-ffmpeg": 'pip install "imageio-ffmpeg>=0.5" for mp4 files',
    "Box2D": 'pip install -e ".[box2d]" for the lunar lander and its relatives',
    "minigrid": 'pip install -e ".[minigrid]" for grid worlds',
}
ENOUGH_DISK_GB = 2.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        level: OK, LESS (something will not be there) or BAD (training will not work).
        what: what was looked at.
        found: what was found.
        do: what to do about it, if anything.
    """

    level: int
    what: str
    found: str
    do: str = ""

    def __str__(self) -> str:
        line = f"{MARKS[self.level]}  {self.what:<18} {self.found}"
        return f"{line}\n      {'':<18} do: {self.do}" if self.do else line


def check_python() -> Iterator[Finding]:
    """Yields the version of Python and the system."""
    good = sys.version_info >= (3, 11)
    advice = "" if good else "use Python 3.11, 3.12 or 3.13"
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding(OK if good else BAD, "Python", found, advice)


def check_packages(version: Callable[[str], str] = metadata.version) -> Iterator[Finding]:
    """Yields the version of each package; `version` raises PackageNotFoundError for one that is missing."""
    for name in (*NEEDED, *OPTIONAL):
        try:
            yield Finding(OK, name, version(name))
        except metadata.PackageNotFoundError:
            if name in OPTIONAL:
                yield Finding(LESS, name, "not installed", OPTIONAL[name])
            else:
                yield Finding(BAD, name, "not installed", "pip install -c constraints.txt -e . in the repository")


def check_cores() -> Iterator[Finding]:
    """Yields the cores that may be used and the threads that libraries will use."""
    from allenact.utils.cores import usable_cores

    cores, present = usable_cores(), os.cpu_count() or 1
    limited = f" of {present}; affinity or the container's quota leaves no more" if cores < present else ""
    yield Finding(OK, "cores", f"{cores}{limited}")
    variables = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    yield Finding(OK, "threads", ", ".join(variables) or "no variables set; the allenact command sets what it needs")
    try:
        import torch
    except ImportError:  # said among the packages
        return
    yield Finding(
        OK, "torch", f"{torch.get_num_threads()} threads, CUDA {'yes' if torch.cuda.is_available() else 'no'}"
    )


def check_rendering() -> Iterator[Finding]:
    """Yields how MuJoCo draws here."""
    from allenact.utils.rendering import RenderingUnavailable, choose_gl_backend

    if importlib.util.find_spec("mujoco") is None:  # said among the packages
        return
    try:
        yield Finding(OK, "OpenGL", f"{choose_gl_backend()}, for pictures of MuJoCo tasks")
    except RenderingUnavailable as error:
        found = f"none ({error.given}); videos will be drawings of paths and joints"
        yield Finding(LESS, "OpenGL", found, error.do)


def check_video() -> Iterator[Finding]:
    """Yields what writes mp4 files."""
    try:
        import imageio_ffmpeg

        yield Finding(OK, "ffmpeg", imageio_ffmpeg.get_ffmpeg_version())
    except (ImportError, RuntimeError) as error:
        yield Finding(LESS, "ffmpeg", f"none: {error}", OPTIONAL["imageio-ffmpeg"])


def check_disk(folder: Path | None = None) -> Iterator[Finding]:
    """Yields the space that is free where runs write by default."""
    folder = Path.cwd() if folder is None else folder
    free = shutil.disk_usage(folder).free / 1e9
    few = free < ENOUGH_DISK_GB
    advice = (
        f"a long run with videos needs about {ENOUGH_DISK_GB:g} GB: free some, or write elsewhere with -o"
        if few
        else ""
    )
    yield Finding(LESS if few else OK, "disk", f"{free:.1f} GB free in {folder}", advice)


CHECKS = (check_python, check_packages, check_cores, check_rendering, check_video, check_disk)


def examine(checks: Sequence[Callable[[], Iterator[Finding]]] = CHECKS) -> Iterator[Finding]:
    """Yields what all checks find; a check that fails itself is a finding as well."""
    for check in checks:
        try:
            yield from check()
        except Exception as error:
            yield Finding(BAD, check.__name__, f"{type(error).__name__}: {error}")


def main() -> int:
    worst = OK
    for finding in examine():
        print(finding)
        worst = max(worst, finding.level)
    print({OK: "Everything works.", LESS: "Training works.", BAD: "Training does not work."}[worst])
    return worst


if __name__ == "__main__":
    sys.exit(main())
