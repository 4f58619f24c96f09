"""Writes the tables of README.md from the results: no number there is typed.

    python -m benchmarks.tables            # after a benchmark
    python -m benchmarks.tables --check    # exit status 1 if a table is stale

Between `<!-- tables: BENCHMARK -->` and `<!-- end of tables -->` goes one table for each file
`results/BENCHMARK-*.json`. Between `<!-- tables: ablation -->` and its end goes one table with a line for each file
`results/learning-ablation-*.json`, likewise for `constant`, and between `<!-- tables: tasks -->` and its end one with a
line for each `results/learning-task-*.json`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

from allenact.utils.metrics_files import Series
from allenact.utils.statistics import student_interval
from benchmarks.common import RESULTS, readable, spread
from benchmarks.learning_figures import TIANSHOU_1M

README = Path(__file__).resolve().parent / "README.md"
MARKED = re.compile(r"(<!-- tables: (\w+) -->\n).*?(<!-- end of tables -->)", re.DOTALL)

IN_ONE_TABLE = re.compile(r"-(ablation|constant|task)-")

Cells = list[str]
MILESTONES = (1_000_000, 2_500_000, 5_000_000, 10_000_000, 20_000_000)  # environment steps
NEAR = 0.02  # a checkpoint counts for a number of steps if it is at most this share of them away


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a table is stale")
    options = parser.parse_args(args)
    page = README.read_text()
    fresh = render(page, RESULTS)
    if options.check and fresh != page:
        sys.exit("benchmarks/README.md is stale: run python -m benchmarks.tables")
    README.write_text(fresh)


def render(page: str, results: Path) -> str:
    """Returns the page with the tables of all results in a folder between its markers."""

    def tables(match: re.Match[str]) -> str:
        benchmark = match[2]
        if benchmark in OF_MANY_RESULTS:
            return match[1] + ("\n".join(OF_MANY_RESULTS[benchmark](results)) or "No results yet.") + "\n" + match[3]
        paths = [path for path in sorted(results.glob(f"{benchmark}-*.json")) if not IN_ONE_TABLE.search(path.name)]
        parts = [section(path.stem.removeprefix(f"{benchmark}-"), json.loads(path.read_text())) for path in paths]
        return match[1] + ("\n".join(parts) or "No results yet.\n") + match[3]

    return MARKED.sub(tables, page)


def section(name: str, result: Mapping[str, Any]) -> str:
    """Returns one result: where it comes from, and its table."""
    machine = result["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    rounds = result["settings"].get("rounds")
    medians = f" Medians of {rounds} rounds (smallest to largest)." if rounds else ""
    commits = trained_at(result)
    trained = "" if commits == [result["commit"]] else f" Trained at commit {', '.join(commits)}."
    lines = [
        f"**{name}**: `{result['command']}`",
        "",
        f"Commit {result['commit']}; {machine['cpu']}, {machine['usable_cores']} usable cores,"
        f" {machine['memory_gb']} GB, {machine['system']}; {versions}.{medians}{trained}",
        "",
        *TABLES[result["benchmark"]](result["rows"]),
        "",
    ]
    return "\n".join(lines)


def throughput(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each task, size and backend."""
    head = ["task", "N", "T", "backend", "collecting", "ratio", "whole loop", "ratio", "ratio to", "steps/s of that"]
    lines = []
    for row in rows:
        series, ratios = row["steps_per_second"], row["ratios"]
        for backend in row["backends"]:
            collect, whole = f"{backend} collect", f"{backend} whole"
            reference, speed = "serial" if collect in ratios else "", ""
            if "physics" in series:
                reference, speed = "physics", middle(series["physics"])
            numbers = [middle(series[collect]), ratio(ratios, collect), middle(series[whole]), ratio(ratios, whole)]
            size = [row["task"], str(row["num_samplers"]), str(row["num_steps"])]
            lines.append([*size, backend, *numbers, reference, speed])
    return table(head, lines)


def peers(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each task and contestant."""
    head = ["task", "N x T", "network", "who", "collecting", "ours is", "whole loop", "ours is"]
    lines = []
    for row in rows:
        size = [row["task"], f"{row['num_samplers']} x {row['num_steps']}", _network(row)]
        series, ratios = row["steps_per_second"], row["ratios"]
        for who in (name.removesuffix(" whole") for name in series if name.endswith(" whole")):
            cells = [*size, who]
            for name in (f"{who} collect", f"{who} whole"):
                cells += [middle(series[name]), f"{ratio(ratios, name)} x" if name in ratios else ""]
            lines.append(cells)
    return table(head, lines)


def update_speed(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each size and number of threads."""
    head = ["T x N", "network", "mini-batches x passes", "the trainer chose", "what", "milliseconds"]
    lines = []
    for row in rows:
        size = [f"{row['num_steps']} x {row['num_samplers']}", _network(row)]
        size += [f"{row['num_mini_batch']} x {row['passes']}", f"{row['chosen_threads']} thread(s)"]
        lines += [[*size, what, middle_of_range(values)] for what, values in row["milliseconds"].items()]
    return table(head, lines)


def startup(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each thing measured."""
    lines = []
    for row in rows:
        lines += [[what, f"{middle_of_range(values)} s"] for what, values in row["seconds"].items()]
        memory = row["memory"]
        each = ", ".join(readable(size) for size in memory["each_megabytes"])
        lines.append(
            [f"peak memory of all {memory['processes']} processes", f"{readable(memory['megabytes'])} MB ({each})"]
        )
        for size in row.get("growth", []):
            what = f"the same with {size['num_samplers']} samplers x {size.get('num_steps', 64)} steps"
            lines.append([what, f"{size['megabytes']:,.0f} MB, of which the rollout {size['rollout_megabytes']} MB"])
    return table(["what", "how much"], lines)


def training_run(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for about each tenth of a run, and one for its speed and memory."""
    lines = []
    for row in rows:
        curve = row["train"]
        picked = [curve[round(i * (len(curve) - 1) / 10)] for i in range(11)]
        for steps, reward in picked:
            validated = [value for step, value in row["valid"] if step <= steps]
            lines.append([f"{steps:,}", readable(reward), readable(validated[-1]) if validated else ""])
        speed, memory = f"{readable(row['steps_per_second'])} steps/s", f"{readable(row['megabytes'])} MB"
        lines.append(["whole run", f"{row['seconds']:,.0f} s, {speed}", f"peak of all processes {memory}"])
    return table(["environment steps", "training reward", "validation reward, last one before"], lines)


def learning(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lines for the steps of MILESTONES and for the end: every seed, their mean, its interval.

    What checkpoints are worth is shown once, under the exact steps of the checkpoint of the first seed.
    """
    rows = list(rows)
    end = min(row["steps"] for row in rows)
    training = {each for each in MILESTONES if each < (1 - NEAR) * end} | {end}
    validated = [nearest(rows[0]["valid"]["steps"], steps) for steps in training]
    at = {
        "training": training,
        "validation": {rows[0]["valid"]["steps"][index] for index in validated if index is not None},
        "evaluation": {each["steps"] for each in rows[0]["evaluations"]},
    }
    lines = []
    for steps in sorted(set().union(*at.values())):
        for what, values in returns_at(rows, steps).items():
            if steps in at.get(what, at["evaluation"]):
                cells = [f"{steps:,}", _minutes(rows, steps), what]
                lines.append([*cells, *map(readable, values), mean_of_seeds(values)])
    head = ["environment steps", "minutes", "returns", *(f"seed {row['seed']}" for row in rows), "mean (95 % interval)"]
    return table(head, lines)


def ablation(results: Path, group: str = "ablation", steps: int = 1_000_000) -> list[str]:
    """One line for each result whose name begins with `GROUP-`, best first: what its seeds have reached by then."""
    lines: list[tuple[float, Cells]] = []
    for path in results.glob(f"learning-{group}-*.json"):
        result = json.loads(path.read_text())
        settings = result["settings"]
        label = settings["label"] or path.stem.removeprefix(f"learning-{group}-")
        end = min(row["steps"] for row in result["rows"])
        if end < 0.95 * steps:
            label += f" (only until {end:,})"
        changed = {name: value for name, value in settings["config_kwargs"].items() if name != "total_steps"}
        returns = {what.split()[-1]: values for what, values in returns_at(result["rows"], steps).items()}
        cells = {
            what: f"{readable(mean(values))} ({', '.join(map(readable, values))})" for what, values in returns.items()
        }
        shown = [cells.get(what, "") for what in ("training", "validation", "episodes")]
        kwargs = f"`{json.dumps(changed)}`" if changed else ""
        lines.append((mean(returns.get("episodes", [0.0])), [label, kwargs, *shown, ", ".join(trained_at(result))]))
    head = ["option", "keyword arguments", "training", "validation", "unseen episodes", "commit"]
    return table(head, [cells for _, cells in sorted(lines, reverse=True)]) if lines else []


def tasks(results: Path, steps: int = 1_000_000) -> list[str]:
    """One line for each result whose name begins with `task-`, and what others have published."""
    lines = []
    for path in sorted(results.glob("learning-task-*.json")):
        result = json.loads(path.read_text())
        rows = result["rows"]
        task = result["settings"]["label"]
        returns = {what.split()[-1]: values for what, values in returns_at(rows, steps).items()}
        cells = [
            f"{readable(mean(returns[what]))} ({', '.join(map(readable, returns[what]))})" if what in returns else ""
            for what in ("training", "episodes")
        ]
        published = "{} ± {}".format(*map(readable, TIANSHOU_1M[task])) if task in TIANSHOU_1M else ""
        lines.append([task, _minutes(rows, steps), *cells, published, ", ".join(trained_at(result))])
    head = ["task", "minutes", "training", "unseen episodes", "Tianshou, best until then", "commit"]
    return table(head, lines) if lines else []


def returns_at(rows: Iterable[Mapping[str, Any]], steps: int) -> dict[str, list[float]]:
    """Returns what runs had reached by then, one value per seed, as far as all of them know.

    Of training the last log until then counts; of validation and of evaluations on unseen episodes the checkpoint that
    is nearest, if it is near.
    """
    rows = list(rows)
    logs = [Series(row["train"]["steps"], row["train"]["seconds"], row["train"]["reward"]) for row in rows]
    found: dict[str, list[float | None]] = {"training": [log.at(steps) for log in logs]}
    validated = [(row["valid"], nearest(row["valid"]["steps"], steps)) for row in rows]
    found["validation"] = [None if index is None else valid["reward"][index] for valid, index in validated]
    evaluated = [(row["evaluations"], nearest([each["steps"] for each in row["evaluations"]], steps)) for row in rows]
    near = [evaluations[index] for evaluations, index in evaluated if index is not None]
    if len(near) == len(rows):
        episodes = max(len(each["returns"]) for each in near)
        found[f"{episodes} unseen episodes"] = [each["reward"]["mean"] for each in near]
    known = {what: [value for value in values if value is not None] for what, values in found.items()}
    return {what: values for what, values in known.items() if len(values) == len(rows)}


def nearest(checkpoints: Sequence[int], steps: int) -> int | None:
    """Returns the index of the checkpoint that is nearest to a number of steps, None if none is near."""
    distances = [abs(each - steps) for each in checkpoints]
    return distances.index(min(distances)) if distances and min(distances) <= NEAR * steps else None


def trained_at(result: Mapping[str, Any]) -> list[str]:
    """Returns the commits at which the seeds of a learning result were trained, as far as it knows."""
    commits = [part["commit"] for row in result["rows"] for part in row.get("trained", ())]
    return list(dict.fromkeys(commits)) or [result["commit"]]


def mean_of_seeds(values: Sequence[float]) -> str:
    """Returns the mean, and its interval by Student's t if there are several seeds."""
    if len(values) == 1:
        return readable(values[0])
    low, high = student_interval(values)
    return f"{readable(sum(values) / len(values))} ({readable(low)} to {readable(high)})"


def _minutes(rows: Iterable[Mapping[str, Any]], steps: int) -> str:
    """Returns the mean over seeds of the minutes of training up to a number of steps."""
    seconds = [
        Series(row["train"]["steps"], row["train"]["seconds"], row["train"]["seconds"]).at(steps) for row in rows
    ]
    known = [value / 60 for value in seconds if value is not None]
    return f"{sum(known) / len(known):.1f}" if known else ""


def step_profile(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each number of samplers."""
    rows = list(rows)
    head = ["N", *rows[0]["microseconds"]]
    return table(head, [[str(row["num_samplers"]), *map(middle, row["microseconds"].values())] for row in rows])


def python_profile(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each kind of process."""
    lines = []
    for row in rows:
        functions = ", ".join(f"`{name}` {percent:.1f}" for name, percent in row["percent"].items())
        lines.append([row["process"], f"{row['samples']:,}", functions])
    return table(["process", "samples", "percent of them"], lines)


def overlap(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each number of samplers."""
    rows = list(rows)
    head = ["task", "N", *rows[0]["steps_per_second"]]
    lines = []
    for row in rows:
        cells = [
            f"{middle(rates)}; {ratio(row['ratios'], name)} x" if name in row["ratios"] else middle(rates)
            for name, rates in row["steps_per_second"].items()
        ]
        lines.append([row["task"], str(row["num_samplers"]), *cells])
    return table(head, lines)


def rendering(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each thing that is done to the frames."""
    lines = []
    for row in rows:
        what = f"{row['frames']} frames of {row['width']} x {row['height']}, {row['back_end']}"
        for name, seconds in row["seconds"].items():
            each = 1000 * median(seconds) / row["frames"]
            lines.append([what, name, middle_of_range(seconds), readable(each)])
    return table(["what", "how", "seconds", "milliseconds each"], lines)


def log_cost(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each run."""
    head = ["run", "logs", "steps/s", "writing, %", "held up, %", "event files at 30M steps", "metrics file"]
    lines = []
    for row in rows:
        percent = [middle_of_range(row["percent"][name]) for name in ("writing", "held up")]
        sizes = [f"{readable(row[name])} MB" for name in ("event_megabytes", "metrics_megabytes")]
        lines.append([row["run"], str(row["logs"]), middle(row["steps_per_second"]), *percent, *sizes])
    return table(head, lines)


def validation_cost(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each thing that takes time."""
    lines = []
    for row in rows:
        lines.append(["steps validated meanwhile", readable(row["steps_validated"])])
        lines += [[name, f"{middle_of_range(seconds)} s"] for name, seconds in row["seconds"].items()]
    return table(["what", "how much"], lines)


TABLES: dict[str, Callable[[Iterable[Mapping[str, Any]]], list[str]]] = {
    "throughput": throughput,
    "peers": peers,
    "update_speed": update_speed,
    "startup": startup,
    "step_profile": step_profile,
    "python_profile": python_profile,
    "overlap": overlap,
    "training_run": training_run,
    "learning": learning,
    "rendering": rendering,
    "log_cost": log_cost,
    "validation_cost": validation_cost,
}

OF_MANY_RESULTS: dict[str, Callable[[Path], list[str]]] = {
    "ablation": ablation,
    "constant": partial(ablation, group="constant"),
    "tasks": tasks,
}


def _network(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, row["hidden"]))


def middle(values: Sequence[float]) -> str:
    """Returns the median."""
    return readable(median(values))


def middle_of_range(values: Sequence[float]) -> str:
    """Returns the median, and between what it lies."""
    ends = spread(values)
    return f"{readable(ends['median'])} ({readable(ends['min'])} to {readable(ends['max'])})"


def ratio(ratios: Mapping[str, Mapping[str, float]], name: str) -> str:
    """Returns the median of a ratio, and between what it lies; nothing where there is none."""
    return "{median:.2f} ({min:.2f} to {max:.2f})".format(**ratios[name]) if name in ratios else ""


def table(head: Cells, lines: Iterable[Cells]) -> list[str]:
    """Returns the lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


if __name__ == "__main__":
    main()
