"""What it takes to see an episode: seconds for 400 frames of the Ant tutorial, drawn and encoded, without a display.

    python -m benchmarks.rendering

The ant moves as random actions make it. Stepping it is not measured. "written" is all that happens to the pictures
afterwards: they are kept as JPEG, then become a GIF in TensorBoard's file and an mp4 file. What an evaluation pays for
a video is therefore the first row and the last. `MUJOCO_GL=osmesa` in front of the command measures that back end.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from allenact.utils.rendering import choose_gl_backend
from allenact.viz import AgentViewViz, VizSuite
from allenact.viz.base import vector_task_datum
from allenact.viz.frames import CompressedImage
from allenact_plugins.gym_plugin.mujoco_env import MuJoCoEnv
from benchmarks.common import Measurement, add_common_arguments, interleave, print_row, record, write_result

TASK = "Ant-v2"


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=400, help="frames of a turn")
    parser.add_argument("--size", type=int, nargs=2, default=(320, 240), metavar=("WIDTH", "HEIGHT"), help="pixels")
    add_common_arguments(parser, rounds=3)
    options = parser.parse_args(args)
    settings = {"rounds": options.rounds, "back end": choose_gl_backend()}
    result = record("rendering", args, settings)
    width, height = options.size
    plain, shadows = (MuJoCoEnv(TASK, "rgb_array", width, height, shadows=shadows) for shadows in (False, True))
    contestants = [
        turn("drawn", plain, plain.render, options.frames),
        turn("drawn with shadows and reflections", shadows, shadows.render, options.frames),
        turn("drawn without OpenGL", plain, plain.render_without_opengl, options.frames),
        lambda: write(plain, options.frames),
    ]
    seconds = interleave(contestants, options.rounds)
    print_row(f"seconds for {options.frames} frames of {width} x {height}", seconds, {})
    row = {"task": TASK, "frames": options.frames, "width": width, "height": height, "back_end": settings["back end"]}
    result["rows"].append({**row, "seconds": seconds})
    write_result(result, options.results, options.name)


def turn(name: str, env: MuJoCoEnv, draw: Callable[[], Any], frames: int) -> Callable[[], Measurement]:
    """Returns a contestant that draws one episode after the other, and counts the seconds spent drawing."""

    def measure() -> Measurement:
        return {name: play(env, frames, draw)[1]}

    return measure


def play(env: MuJoCoEnv, frames: int, draw: Callable[[], Any]) -> tuple[list[Any], float]:
    """Returns what was drawn before each of `frames` random actions, and how many seconds that took."""
    env.reset(seed=0)
    env.action_space.seed(0)
    pictures, seconds = [], 0.0
    for _ in range(frames):
        start = time.perf_counter()
        pictures.append(draw())
        seconds += time.perf_counter() - start
        if env.step(env.action_space.sample())[2]:
            env.reset()
    return pictures, seconds


def write(env: MuJoCoEnv, frames: int) -> Measurement:
    """Returns the seconds that an episode takes from its pictures to its files."""
    from allenact.utils.summary_writer import SummaryWriter

    pictures, _ = play(env, frames, env.render)
    viz = AgentViewViz(label="episode_vid", max_clip_length=400, fps=30)  # the tutorial's
    datum = vector_task_datum(viz.vector_task_sources[0])
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        steps = [{datum: CompressedImage.from_array(picture)} for picture in pictures]
        with SummaryWriter(folder, videos_dir=Path(folder)) as writer:
            suite = VizSuite(mode="test", episode_ids=["an episode"], video=viz)
            suite.log(writer, task_outputs=[], render={"an episode": steps}, num_steps=0)
        return {"written": time.perf_counter() - start}


if __name__ == "__main__":
    main()
