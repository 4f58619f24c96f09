"""Imports go one way, as docs/overview.md says, and never to a plugin."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ONPOLICY = "allenact.algorithms.onpolicy_sync"
LAYERS = [  # the lowest first; a module belongs to the longest name that it begins with
    {"allenact", "allenact.utils"},
    {"allenact.base_abstractions", "allenact.callbacks", "allenact.utils.callback_loading"},
    {f"{ONPOLICY}.{name}" for name in ("losses", "storage", "policy", "returns", "non_finite")}
    | {"allenact.embodiedai", "allenact.algorithms.offpolicy_sync"},
    {"allenact.pipeline"},
    {f"{ONPOLICY}.vector_sampled_tasks"},
    {ONPOLICY, "allenact.viz"},
    {"allenact.runs"},
    {f"{ONPOLICY}.runner", f"{ONPOLICY}.runner_base"},
    {"allenact.main", "allenact.testing", "allenact.utils.inference"}
    | {f"allenact.utils.{name}" for name in ("experiment_utils", "viz_utils", "multi_agent_viz_utils")},
]


def layer(module):
    found = [
        (name, index) for index, names in enumerate(LAYERS) for name in names if f"{module}.".startswith(f"{name}.")
    ]
    return max(found)[1]


def imported(body):
    """Yields the modules that are imported as soon as one with this body is."""
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield statement.module
        elif isinstance(statement, ast.Try):
            yield from imported(statement.body)


def test_imports_go_one_way():
    against = []
    for file in sorted((ROOT / "allenact").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for name in imported(ast.parse(file.read_text("utf-8")).body):
            is_ours = name.partition(".")[0] == "allenact"
            if name.startswith("allenact_plugins") or (is_ours and layer(name) > layer(module)):
                against.append(f"{module} imports {name}")
    assert against == []


def test_layers_are_told_apart():
    assert (
        layer("allenact.utils.inference") > layer(f"{ONPOLICY}.runner") > layer("allenact.runs.run") > layer(ONPOLICY)
    )
    assert layer(ONPOLICY) > layer(f"{ONPOLICY}.losses.ppo") > layer("allenact.utils.inference_helpers") == 0
