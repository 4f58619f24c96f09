r"""Draws learning results against environment steps and against time, with what others have published.

    python -m benchmarks.learning_figures ant-modern --mode train --published ant \
        --title 'Ant-v2, modern recipe' --figure docs/figures/learning-ant.png

Lines are means over seeds with 95 % intervals (Student's t), thin lines the seeds. The published results are those of
the sources named in the figure, with the error that a source gives; they were measured with other networks, numbers
of seeds and versions of the task.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from allenact.utils.metrics_files import Series
from allenact.viz.curves import Published, draw_curves, new_figure, save_figure
from benchmarks.common import RESULTS

PUBLISHED = {
    "ant": (
        Published("AllenAct (2 seeds)", ((1e6, 1098.6), (25e6, 4719.0))),
        Published(
            "rl_games + EnvPool (1 seed, Ant-v4)", ((1e6, 1722.0), (2e6, 4199.0), (3e6, 5075.0), (8.2e6, 6123.0))
        ),
        Published("Tianshou (10 seeds, evaluation)", ((1e6, 3258.0), (3e6, 4079.0))),
        Published("Sample Factory (best of 10 seeds)", ((10e6, 5876.0),), errors=(167.0,)),
    )
}

TIANSHOU_1M = {
    "Ant": (3258.4, 1079.3),
    "HalfCheetah": (5783.9, 1244.0),
    "Hopper": (2609.3, 700.8),
    "Walker2d": (3588.5, 756.6),
    "Swimmer": (66.7, 99.1),
    "Humanoid": (787.1, 193.5),
    "Reacher": (-4.1, 0.3),
    "InvertedPendulum": (1000.0, 0.0),
    "InvertedDoublePendulum": (9231.3, 270.4),
}
"""Mean and standard deviation over 10 seeds of Tianshou's PPO (examples/mujoco), 10 episodes each; at the checkpoint
within the first million environment steps whose mean is highest."""


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("names", nargs="+", help="of the results, results/learning-NAME.json")
    parser.add_argument("--figure", type=Path, required=True, help="file to write, .png or .svg")
    parser.add_argument("--mode", choices=("train", "valid"), default="valid", help="which returns")
    parser.add_argument(
        "--metric", choices=("reward", "ep_length", "success"), default="reward", help="of the episodes"
    )
    parser.add_argument("--published", choices=sorted(PUBLISHED), default=None, help="results of others to show")
    parser.add_argument("--title", default="", help="above the figure")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(args)
    groups = dict(read_result(options.results, name, options.mode, options.metric) for name in options.names)
    published = PUBLISHED.get(options.published, ()) if options.metric == "reward" else ()
    figure, (steps, minutes) = new_figure(columns=2, title=options.title)
    draw_curves(steps, groups, published=published)
    draw_curves(minutes, groups, x="seconds")
    exploration = "with exploration" if options.mode == "train" else "without exploration"
    steps.set_ylabel(f"{options.metric}, {exploration}")
    steps.legend(fontsize="small")
    save_figure(figure, options.figure)
    print(f"wrote {options.figure}")


def read_result(results: Path, name: str, mode: str, metric: str) -> tuple[str, list[Series]]:
    """Returns what a result is called, and the curve of each of its seeds."""
    result = json.loads((results / f"learning-{name}.json").read_text())
    curves = [row[mode] for row in result["rows"]]
    return result["settings"]["label"] or name, [
        Series(curve["steps"], curve["seconds"], curve[metric]) for curve in curves if curve["steps"]
    ]


if __name__ == "__main__":
    main()
