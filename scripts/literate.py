"""Renders the tutorials, which are Python files with prose in them, to pages in `docs/tutorials`.

What counts as prose is a bare string between the statements of the module or of a class. A string that
starts a function or a class is its docstring and stays code. The module's own docstring opens the page, and
its first line is the title.

    python scripts/literate.py            # write every page
    python scripts/literate.py --check    # exit status 1, and a list, if a page is stale
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = Path("projects/tutorials")
PAGES = Path("docs/tutorials")


def bare_string(node: ast.stmt) -> str | None:
    """The text of a statement that is nothing but a string, without the indentation around it; else None."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return None


def prose(module: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Yields the bare strings of a module and of its classes, in the order of the file."""
    for node in module.body:
        text = bare_string(node)
        if text is not None:
            yield node, text
        elif isinstance(node, ast.ClassDef):
            for statement in node.body[1:]:  # the first one is the class's docstring, if it is a string
                text = bare_string(statement)
                if text is not None:
                    yield statement, text


def fenced(lines: Sequence[str]) -> str:
    """A code block, or nothing if the lines are all empty."""
    code = "\n".join(lines).strip("\n")
    return f"```python\n{code}\n```\n" if code.strip() else ""


def render(source: str, path: Path) -> str:
    """Turns the text of a tutorial into Markdown.

    Args:
        source: the text of the file.
        path: where the file is, relative to the repository; named at the top and bottom of the page.
    """
    lines = source.split("\n")
    blocks = []
    rendered = 0  # lines of the source that are on the page already
    for node, text in prose(ast.parse(source)):
        blocks.append(fenced(lines[rendered : node.lineno - 1]))
        if node.lineno == 1:  # the module's docstring
            title, _, rest = text.partition("\n")
            text = f"# {title.rstrip('.')}\n{rest}"
        blocks.append(text + "\n")
        rendered = node.end_lineno or node.lineno
    blocks.append(fenced(lines[rendered:]))

    header = f"<!-- Rendered from {path.as_posix()} by scripts/literate.py: edit that file, not this one. -->\n"
    footer = f"---\n\nThis page is [`{path.as_posix()}`](../../{path.as_posix()}), which runs as it stands.\n"
    return "\n".join([header, *(block for block in blocks if block), footer])


def tutorials(root: Path) -> dict[Path, str]:
    """Maps each page, relative to the repository, to what it should contain."""
    files = sorted((root / SOURCES).glob("*.py"))
    return {
        PAGES / f"{file.stem}.md": render(file.read_text(encoding="utf-8"), file.relative_to(root))
        for file in files
        if not file.stem.startswith("_")
    }


def stale_pages(root: Path) -> list[str]:
    """Says of each page that is missing, outdated or left over what is wrong with it."""
    wanted = tutorials(root)
    problems = []
    for page, content in wanted.items():
        if not (root / page).is_file():
            problems.append(f"{page}: missing")
        elif (root / page).read_text(encoding="utf-8") != content:
            problems.append(f"{page}: older than its tutorial")
    present = {path.relative_to(root) for path in (root / PAGES).glob("*.md")}
    problems += [f"{page}: its tutorial is gone" for page in sorted(present - wanted.keys())]
    return problems


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Writes or checks the pages; returns the exit status."""
    parser = argparse.ArgumentParser(description="Render the tutorials to docs/tutorials.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is stale")
    if parser.parse_args(argv).check:
        problems = stale_pages(root)
        for problem in problems:
            print(problem, file=sys.stderr)
        if problems:
            print("do: python scripts/literate.py", file=sys.stderr)
        return 1 if problems else 0

    (root / PAGES).mkdir(parents=True, exist_ok=True)
    for page, content in tutorials(root).items():
        (root / page).write_text(content, encoding="utf-8")
        print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
