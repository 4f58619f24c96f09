"""Plays one episode with the weights of a checkpoint and writes it down, as a page to look at or as a video.

    python scripts/replay.py CHECKPOINT                      # a page with the motion, to turn and to scrub through
    python scripts/replay.py CHECKPOINT --format mp4         # a video
    python scripts/replay.py CHECKPOINT --episode 3 --sample

The page holds everything it needs: open it from anywhere, without a network. It is for MuJoCo tasks; videos are for all
tasks that can be drawn. The experiment is found through the folder `used_configs` of the run that wrote the checkpoint,
or is given as to the main command: `--experiment gym_mujoco_tutorial -b projects/tutorials`.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from allenact.errors import AllenActError, CheckpointError, ExperimentNotFoundError, UsageError  # noqa: E402

if TYPE_CHECKING:
    from allenact.base_abstractions.experiment_config import ExperimentConfig
    from allenact.base_abstractions.task import Task

TEMPLATE = Path(__file__).with_name("replay_template.html")
PLACEHOLDER = "/* the episode */ null"
ORIGIN = re.compile(r"### THIS FILE ORIGINALLY LOCATED AT '(.*)'")


# Which experiment


@dataclass(frozen=True)
class RunFolders:
    """Where the run that wrote a checkpoint keeps other things.

    Attributes:
        used_configs: copies of the experiment's files, and its keyword arguments.
        videos: where this script writes.
    """

    used_configs: Path
    videos: Path

    @classmethod
    def of(cls, checkpoint: Path) -> RunFolders:
        """Returns them for a checkpoint in either layout of the output folder."""
        folder = checkpoint.resolve().parent
        if folder.name == "checkpoints":  # nested: OUT/TAG/START/checkpoints
            return cls(folder.parent / "used_configs", folder.parent / "videos")
        parts = list(folder.parts)
        if "checkpoints" not in parts:
            return cls(folder / "used_configs", folder)
        place = len(parts) - 1 - parts[::-1].index("checkpoints")  # flat: OUT/checkpoints/TAG/START
        return cls(*(Path(*parts[:place], name, *parts[place + 1 :]) for name in ("used_configs", "videos")))


def find_experiment(checkpoint: Path, config_kwargs: str | None = None) -> ExperimentConfig:
    """Returns the experiment that wrote a checkpoint, from the record that its run kept.

    Args:
        checkpoint: file.
        config_kwargs: keyword arguments to use instead of the run's; None: these.

    Raises:
        ExperimentNotFoundError: there is no record, or nothing in it is an experiment with the checkpoint's tag.
    """
    from allenact.utils.experiment_loading import load_experiment

    folder = RunFolders.of(checkpoint).used_configs
    kwargs_file = folder / "config_kwargs.json"
    if config_kwargs is None and kwargs_file.is_file():
        config_kwargs = kwargs_file.read_text(encoding="utf-8")
    tag = checkpoint.stem.removeprefix("exp_").partition("__stage_")[0]
    reasons = []
    for copy in sorted(folder.glob("*.py")):
        origin = ORIGIN.match(copy.read_text(encoding="utf-8"))
        candidates = [Path(origin[1])] if origin else []
        for file in [file for file in candidates if file.is_file()] or [copy]:
            try:
                config = load_experiment(str(file), str(file.parent), config_kwargs).config
                if tag.startswith(config.tag()):  # an extra tag may follow
                    return config
                reasons.append(f'{file}: its tag is "{config.tag()}"')
            except Exception as error:  # the file of a base class, or one that needs what is not there any more
                reasons.append(f"{file}: {type(error).__name__}: {error}".splitlines()[0])
    raise ExperimentNotFoundError(
        "the experiment that wrote this checkpoint was not found.",
        "\n         ".join([f'looked for the tag "{tag}" in {folder}', *reasons]),
        "name it: --experiment gym_mujoco_tutorial -b projects/tutorials.",
    )


# Playing


@dataclass
class Episode:
    """What happened in one episode of T steps.

    Attributes:
        task_id: the episode's id.
        rewards: [T] of each step.
        frames: pictures before each action, [H, W, 3] uint8 each, if they were asked for.
        poses: of the geoms before each action, [G, 7] each (position, then quaternion w, x, y, z), if asked for.
        torso: position of the first body before each action, [3] each, if asked for.
    """

    task_id: str = ""
    rewards: list[float] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    poses: list[np.ndarray] = field(default_factory=list)
    torso: list[np.ndarray] = field(default_factory=list)


def make_task(config: ExperimentConfig, number: int) -> Task[Any]:
    """Returns a test task of the experiment; `number` counts those of the first sampler from 0.

    Raises:
        UsageError: there are fewer.
    """
    from allenact.utils.seeding import EVALUATION_SEED, worker_seeds

    seeds = worker_seeds(1, EVALUATION_SEED)
    args = config.test_task_sampler_args(process_ind=0, total_processes=1, devices=None, seeds=seeds)
    sampler = config.make_sampler_fn(**{"mp_ctx": None, **args})
    tasks = (sampler.next_task() for _ in range(number + 1))
    *_, task = (None, *tasks)
    if task is None:
        raise UsageError("there is no such episode.", f"--episode {number}", "they are numbered from 0 on.")
    return task


def play(
    config: ExperimentConfig, checkpoint: Path, task: Task[Any], *, sample: bool, max_steps: int, pictures: bool
) -> Episode:
    """Plays a task to its end, or for `max_steps` environment steps.

    Args:
        config: the experiment.
        checkpoint: whose weights to play with.
        task: fresh.
        sample: act as in training, instead of taking the most likely action.
        max_steps: environment steps at most.
        pictures: keep pictures instead of poses.
    """
    import torch

    from allenact.utils.inference import InferenceAgent
    from allenact.utils.seeding import EVALUATION_SEED, set_seed

    set_seed(EVALUATION_SEED)
    agent = InferenceAgent.from_experiment_config(
        config, torch.device("cpu"), checkpoint_path=str(checkpoint), deterministic=not sample
    )
    agent.reset()
    episode = Episode(task_id=str((task.task_info or {}).get("id", "")))
    look = Camera(task) if pictures else MotionRecorder(task)
    observations = task.get_observations()
    while not task.is_done() and len(episode.rewards) < max_steps:
        look(episode)
        result = task.step(agent.act(observations=observations))
        observations = result.observation
        episode.rewards.append(float(np.asarray(result.reward).sum()))
    return episode


class Camera:
    """Adds a picture of the task to an episode; a drawing where there is no OpenGL."""

    def __init__(self, task: Task[Any]) -> None:
        self.task = task
        self.kwargs: dict[str, Any] = {}

    def __call__(self, episode: Episode) -> None:
        """Looks."""
        from allenact.utils.rendering import RenderingUnavailable

        try:
            episode.frames.append(self.task.render("rgb", **self.kwargs))
        except RenderingUnavailable as error:
            if self.kwargs:
                raise
            print(f"The video is a drawing of path and joints: {error}", file=sys.stderr)
            self.kwargs = {"without_opengl": True}
            episode.frames.append(self.task.render("rgb", **self.kwargs))


class MotionRecorder:
    """Adds the poses of all geoms of a MuJoCo task to an episode.

    Raises:
        UsageError: it is no such task.
    """

    def __init__(self, task: Task[Any]) -> None:
        env: Any = getattr(task.env, "mujoco_env", None)
        if env is None:
            raise UsageError(
                "only the motion of MuJoCo tasks can be recorded.",
                f"{type(task).__name__} in {type(task.env).__name__}",
                "use --format mp4.",
            )
        self.env = env

    def __call__(self, episode: Episode) -> None:
        """Measures."""
        import mujoco

        data = self.env.current_data()
        quaternions = np.empty((len(data.geom_xmat), 4))  # [G, 4]
        for quaternion, matrix in zip(quaternions, data.geom_xmat, strict=True):
            mujoco.mju_mat2Quat(quaternion, matrix)
        episode.poses.append(np.concatenate([data.geom_xpos, quaternions], axis=1).astype(np.float32))  # [G, 7]
        episode.torso.append(data.xpos[1].copy())


# Writing


def page(episode: Episode, model: Any, dt: float, title: str) -> str:
    """Returns an HTML page that shows the recorded motion.

    Args:
        episode: with poses.
        model: `mujoco.MjModel` whose geoms they are.
        dt: seconds per environment step.
        title: of the page.
    """
    torso = np.array(episode.torso)  # [T, 3]
    speed = np.gradient(torso, dt, axis=0)[:, :2] if len(torso) > 1 else np.zeros((1, 2))  # [T, 2] m/s
    shown = [index for index in range(model.ngeom) if _is_visible(model, index)]
    poses = np.array(episode.poses)[:, shown]  # [T, G, 7]
    content = {
        "title": title,
        "dt": dt,
        "geoms": [_describe_geom(model, index) for index in shown],
        "poses": base64.b64encode(poses.astype("<f4").tobytes()).decode(),
        "torso": np.round(torso, 4).tolist(),
        "traces": [
            {"name": "reward", "values": np.round(episode.rewards, 4).tolist()},
            {"name": "velocity along x, m/s", "values": np.round(speed[:, 0], 4).tolist()},
        ],
    }
    template = TEMPLATE.read_text(encoding="utf-8")
    return template.replace(PLACEHOLDER, json.dumps(content).replace("</", "<\\/"))


def _is_visible(model: Any, geom: int) -> bool:
    return bool(model.geom_group[geom] < 3 and _colour(model, geom)[3] > 0)  # MuJoCo hides the other groups, too


def _colour(model: Any, geom: int) -> list[float]:
    material = model.geom_matid[geom]
    return [float(part) for part in (model.geom_rgba[geom] if material < 0 else model.mat_rgba[material])]


def _describe_geom(model: Any, geom: int) -> dict[str, Any]:
    import mujoco

    kind = mujoco.mjtGeom(int(model.geom_type[geom])).name.removeprefix("mjGEOM_").lower()
    size = model.geom_size[geom] if kind != "mesh" else model.geom_aabb[geom, 3:]  # meshes are shown as their boxes
    return {
        "kind": "box" if kind == "mesh" else kind,
        "size": [float(side) for side in size],
        "colour": _colour(model, geom),
    }


def free_path(path: Path) -> Path:
    """Returns `path`, or the first numbered name beside it that does not exist."""
    names: Iterator[Path] = (path.with_name(f"{path.stem}-{k}{path.suffix}") if k else path for k in count())
    return next(candidate for candidate in names if not candidate.exists())


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--experiment", help="module or file, as for the main command; none: the run's own record")
    parser.add_argument("-b", "--experiment_base", default=".", help="directory of experiment modules")
    parser.add_argument("--config_kwargs", help="as for the main command; none: the run's own")
    parser.add_argument("--format", choices=("html", "mp4"), default="html")
    parser.add_argument("--episode", type=int, default=0, help="which test episode, from 0")
    parser.add_argument("--sample", action="store_true", help="sample actions instead of taking the most likely")
    parser.add_argument("--max_steps", type=int, default=1000, help="environment steps at most")
    parser.add_argument("-o", "--output", type=Path, help="file to write; none: in the folder videos of the run")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> Path:
    """Plays and writes; returns the file.

    Raises:
        AllenActError: checkpoint, experiment or task do not allow it.
    """
    if not args.checkpoint.is_file():
        raise CheckpointError("there is no such checkpoint.", str(args.checkpoint), "pass the path of a .pt file.")
    if args.experiment is None:
        config = find_experiment(args.checkpoint, args.config_kwargs)
    else:
        from allenact.utils.experiment_loading import load_experiment

        config = load_experiment(args.experiment, args.experiment_base, args.config_kwargs).config
    task = make_task(config, args.episode)
    is_video = args.format == "mp4"
    episode = play(config, args.checkpoint, task, sample=args.sample, max_steps=args.max_steps, pictures=is_video)
    name = f"replay__{args.checkpoint.stem}__episode_{args.episode}.{args.format}"
    path = free_path(args.output or RunFolders.of(args.checkpoint).videos / name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_video:
        from allenact.utils.video_utils import write_mp4

        path = write_mp4(path, episode.frames, fps=30)
    else:
        env: Any = task.env
        title = f"{config.tag()}, {args.checkpoint.stem}, episode {args.episode}"
        path.write_text(page(episode, env.mujoco_env.task.model, env.mujoco_env.task.dt, title), encoding="utf-8")
    task.close()
    print(f"{len(episode.rewards)} steps, return {sum(episode.rewards):.1f}: {path}")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    args = get_args(argv)
    try:
        run(args)
    except AllenActError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
