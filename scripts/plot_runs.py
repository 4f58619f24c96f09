"""Draws curves of training runs from their metrics files.

    python scripts/plot_runs.py experiment_output
    python scripts/plot_runs.py out/seed0 out/seed1 out/seed2 --metric reward ep_length --x seconds -o curves.svg
    python scripts/plot_runs.py plain=out/a plain=out/b "with KL"=out/c "with KL"=out/d --mode valid

Each folder is the output folder of runs, or any folder in it. Runs with the same label are seeds of the same thing and
become one mean with a 95 % interval (Student's t); runs without a label are called as their experiment is tagged.
Resumed runs are one run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from allenact.errors import AllenActError  # noqa: E402
from allenact.utils.metrics_files import RunMetrics, read_runs  # noqa: E402
from allenact.viz.curves import draw_curves, new_figure, save_figure  # noqa: E402


def main(args: Sequence[str] | None = None) -> int:
    """Draws the figure and returns the exit status."""
    options = _parse(args)
    try:
        runs = labelled_runs(options.runs, options.separate)
        draw(runs, options.metric, options.mode, options.x, options.output, options.title)
    except AllenActError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    for label, members in runs.items():
        print(f"{label}: {len(members)} run{'s' if len(members) != 1 else ''},", _extent(members))
    print(f"wrote {options.output}")
    return 0


def _parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="plot_runs.py",
        description=__doc__.splitlines()[0] if __doc__ else "",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="[LABEL=]DIR", help="folder of runs, and what to call them")
    parser.add_argument(
        "--metric",
        nargs="+",
        default=["reward"],
        help="a metric of the episodes (reward, ep_length, success), or another number by its tag or the end of it (lr,"
        " ppo_loss/value, time_share_update); a panel for each",
    )
    parser.add_argument("--mode", choices=("train", "valid"), default="train", help="whose episodes")
    parser.add_argument(
        "--x", choices=("steps", "seconds"), default="steps", help="environment steps, or training time"
    )
    parser.add_argument("--separate", action="store_true", help="a line of its own for each run, no means")
    parser.add_argument("--title", default="", help="above the figure")
    parser.add_argument("-o", "--output", type=Path, default=Path("curves.png"), help="file to write, .png or .svg")
    return parser.parse_args(args)


def labelled_runs(arguments: Iterable[str], separate: bool = False) -> dict[str, list[RunMetrics]]:
    """Returns the runs that the arguments name, by label.

    Args:
        arguments: folders, each with `LABEL=` in front or not.
        separate: give every run a label of its own.

    Raises:
        MetricsFileError: a folder has no metrics.
    """
    labelled: dict[str, list[RunMetrics]] = {}
    for argument in arguments:
        label, equals, folder = argument.partition("=")
        if not equals or Path(argument).exists():
            label, folder = "", argument
        for run in read_runs(Path(folder)):
            name = label or run.tag
            if separate:
                name = f"{name} {run.files[0].parent.name}"
                while name in labelled:
                    name += "'"
            labelled.setdefault(name, []).append(run)
    return labelled


def draw(
    runs: dict[str, list[RunMetrics]], metrics: Sequence[str], mode: str, x: str, output: Path, title: str = ""
) -> None:
    """Draws a panel for each metric.

    Raises:
        MetricsFileError: a run has not logged it.
    """
    figure, panels = new_figure(columns=len(metrics), title=title)
    for axes, metric in zip(panels, metrics, strict=True):
        groups = {label: [run.series(metric, mode) for run in members] for label, members in runs.items()}
        draw_curves(axes, groups, x=x)
        axes.set_ylabel(metric if "/" in metric else f"{metric} ({mode})")
    panels[0].legend(fontsize="small")
    save_figure(figure, output)


def _extent(runs: Iterable[RunMetrics]) -> str:
    return "; ".join(f"{run.steps:,} steps in {run.seconds / 60:.1f} minutes" for run in runs)


if __name__ == "__main__":
    sys.exit(main())
