"""Ships trained policies: strips a checkpoint to its weights, evaluates it, writes its card, and checks it later.

    python -m scripts.shipped_checkpoints add ant-modern FILE.pt gym_mujoco_ant_ppo \
        -b projects/gym_baselines/experiments/mujoco --recipe "..." --trained_by "allenact ..."
    python -m scripts.shipped_checkpoints evaluate ant-modern
    python -m scripts.shipped_checkpoints page [--check]

Run it from the root of the repository.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from allenact.algorithms.onpolicy_sync.checkpointing import load_checkpoint, save_weights
from allenact.errors import AllenActError, CheckpointError, did_you_mean
from benchmarks.common import machine, readable, versions
from projects.gym_baselines.held_out import EPISODES, FIRST_SEED, evaluate_held_out

FOLDER = Path("projects/gym_baselines/checkpoints")
OUTPUT = Path("experiment_output", "shipped_checkpoints")
MARKED = re.compile(r"(<!-- cards -->\n).*?(<!-- end of cards -->)", re.DOTALL)
SHOWN = ("reward", "ep_length", "success")

Card = dict[str, Any]


def main(args: Sequence[str] | None = None) -> int:
    """Does what the command line says and returns the exit status."""
    options = _parse(args)
    try:
        return int(options.do(options))
    except AllenActError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status


def _parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="shipped_checkpoints", description=__doc__.splitlines()[0] if __doc__ else "", allow_abbrev=False
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the checkpoints, their cards and the page")
    commands = parser.add_subparsers(required=True)
    new = commands.add_parser("add", help="ship a checkpoint, or replace one")
    new.add_argument("name", help="what to call it")
    new.add_argument("checkpoint", type=Path, help="a file that training wrote")
    new.add_argument("experiment", help="as for the allenact command")
    new.add_argument("-b", "--base", default=".", help="folder of the experiment")
    new.add_argument("--config_kwargs", type=json.loads, default={}, help="keyword arguments of the experiment, JSON")
    new.add_argument("--recipe", required=True, help="how it was trained, in a sentence")
    new.add_argument("--trained_by", required=True, help="the command that trained it")
    new.add_argument("--episodes", type=int, default=EPISODES, help="to evaluate it on")
    new.set_defaults(do=add)
    again = commands.add_parser("evaluate", help="evaluate a shipped checkpoint and compare it with its card")
    again.add_argument("name", help="of the checkpoint")
    again.set_defaults(do=evaluate)
    page = commands.add_parser("page", help="write the cards into the page")
    page.add_argument("--check", action="store_true", help="write nothing; exit status 1 if the page is stale")
    page.set_defaults(do=write_page)
    return parser.parse_args(args)


def add(options: argparse.Namespace) -> int:
    """Strips a checkpoint, evaluates it, and writes its card and the page."""
    shipped = options.folder / f"{options.name}.pt"
    state = load_checkpoint(str(options.checkpoint))
    save_weights(state, shipped)
    card: Card = {
        "experiment": options.experiment,
        "base": options.base,
        "config_kwargs": options.config_kwargs,
        "recipe": options.recipe,
        "trained_by": options.trained_by,
        "training_steps": state.total_steps,
        "training_seed": state.trainer_seed,
        "kilobytes": round(shipped.stat().st_size / 1000),
        "episodes": options.episodes,
        "first_seed": FIRST_SEED,
    }
    metrics = _evaluate(card, shipped)
    card |= {"actions": "deterministic", "metrics": metrics, "machine": machine()["cpu"], "versions": versions()}
    (options.folder / f"{options.name}.json").write_text(json.dumps(card, indent=1) + "\n")
    options.check = False
    return write_page(options)


def evaluate(options: argparse.Namespace) -> int:
    """Evaluates a shipped checkpoint and prints its numbers beside its card's; status 1 if they disagree."""
    cards = read_cards(options.folder)
    if options.name not in cards:
        raise CheckpointError(
            f'no policy is called "{options.name}".',
            f"policies in {options.folder}: {', '.join(cards) or 'none'}",
            did_you_mean(options.name, cards),
        )
    card = cards[options.name]
    here = _evaluate(card, options.folder / f"{options.name}.pt")
    print_comparison(options.name, card, here)
    return 0 if agree(card["metrics"]["reward"], here["reward"]) else 1


def _evaluate(card: Card, checkpoint: Path) -> dict[str, Any]:
    """Returns the statistics of each metric of a checkpoint, evaluated as its card says."""
    _, report = evaluate_held_out(
        card["experiment"],
        card["base"],
        str(checkpoint),
        OUTPUT,
        config_kwargs=card["config_kwargs"],
        episodes=card["episodes"],
        first_seed=card["first_seed"],
    )
    return dict(report["checkpoints"][0]["metrics"])


def agree(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether the mean of one lies within the interval of the other, or the other way round.

    On the same machine and versions they are equal. Elsewhere rounding differs, and after a few hundred steps of
    physics so does the episode.
    """
    return one["low"] <= other["mean"] <= one["high"] or other["low"] <= one["mean"] <= other["high"]


def print_comparison(name: str, card: Card, here: Mapping[str, Any]) -> None:
    """Prints the statistics of a checkpoint beside its card's."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{name}: {card['experiment']}, {card['training_steps']:,} steps of training")
    for heading in ("metric", "on the card", "here", "std here"):
        table.add_column(heading, justify="left" if heading == "metric" else "right", no_wrap=True)
    for metric in SHOWN:
        if metric in here:
            cells = [with_interval(card["metrics"][metric]), with_interval(here[metric]), readable(here[metric]["std"])]
            table.add_row(metric, *cells)
    console = Console()
    console.print(table)
    seeds = f"{card['first_seed']} to {card['first_seed'] + card['episodes'] - 1}"
    verdict = "agree" if agree(card["metrics"]["reward"], here["reward"]) else "DIFFER"
    console.print(
        f"{card['episodes']} episodes with seeds {seeds}, {card['actions']} actions; in brackets 95 % bootstrap"
        f" intervals of the mean. The two rewards {verdict}."
    )


def with_interval(summary: Mapping[str, Any]) -> str:
    """Returns a mean and its interval."""
    return f"{readable(summary['mean'])} [{readable(summary['low'])}, {readable(summary['high'])}]"


# The page


def read_cards(folder: Path) -> dict[str, Card]:
    """Returns the cards by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def write_page(options: argparse.Namespace) -> int:
    """Writes the cards into the page, or checks that they are there; returns the exit status."""
    page = options.folder / "README.md"
    text = page.read_text(encoding="utf-8")
    cards = read_cards(options.folder)
    fresh = MARKED.sub(lambda match: match[1] + (render(cards) if cards else "No policies yet.\n") + match[2], text)
    if options.check:
        if fresh != text:
            print(f"{page} is stale: run python -m scripts.shipped_checkpoints page", file=sys.stderr)
        return int(fresh != text)
    page.write_text(fresh, encoding="utf-8")
    return 0


def render(cards: Mapping[str, Card]) -> str:
    """Returns the Markdown of the cards."""
    head = ["policy", "trained for", "return", "episode length", "success", "episodes", "size"]
    lines = [_row(head), _row(["---"] * len(head))]
    for name, card in cards.items():
        numbers = [with_interval(card["metrics"][metric]) for metric in SHOWN]
        lines.append(
            _row(
                [name, f"{card['training_steps']:,} steps", *numbers, str(card["episodes"]), f"{card['kilobytes']} kB"]
            )
        )
    for name, card in cards.items():
        lines += ["", f"## {name}", "", card["recipe"], "", *_facts(name, card)]
    return "\n".join(lines) + "\n"


def _facts(name: str, card: Card) -> list[str]:
    """Returns the lines of a card that follow its recipe."""
    reward = {key: readable(value) for key, value in card["metrics"]["reward"].items()}
    kwargs = f" with `{json.dumps(card['config_kwargs'])}`" if card["config_kwargs"] else ""
    packages = ", ".join(f"{package} {version}" for package, version in card["versions"].items())
    first, last = card["first_seed"], card["first_seed"] + card["episodes"] - 1
    return [
        f"- Experiment: `{shlex.join([card['experiment'], '-b', card['base']])}`{kwargs}",
        f"- Trained for {card['training_steps']:,} environment steps with seed {card['training_seed']} by"
        f" `{card['trained_by']}`",
        f"- Evaluated with {card['actions']} actions on {card['episodes']} episodes with seeds {first} to {last}:"
        f" returns from {reward['min']} to {reward['max']}, median {reward['median']}, standard deviation"
        f" {reward['std']}. Again: `python -m scripts.shipped_checkpoints evaluate {name}`",
        f"- On {card['machine']} with {packages}",
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
