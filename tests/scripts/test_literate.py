"""The renderer of the tutorials, and whether the committed pages are what it gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SOURCE = '''"""Counting sheep.

They jump.
"""

import math

"""
## A class

with prose in it.
"""


class Sheep:
    """Stays code."""

    LEGS = 4

    """
    Every sheep has four.
    """

    def jump(self):
        """Stays code, too."""
        return math.inf
'''


@pytest.fixture(scope="module")
def literate():
    spec = importlib.util.spec_from_file_location("literate", ROOT / "scripts" / "literate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path):
    """A repository with one tutorial and no pages."""
    tutorials = tmp_path / "projects" / "tutorials"
    tutorials.mkdir(parents=True)
    (tutorials / "__init__.py").write_text('"""No tutorial."""\n')
    (tutorials / "sheep.py").write_text(SOURCE)
    return tmp_path


def code_blocks(page: str) -> list[str]:
    return [block.partition("\n```")[0] for block in page.split("```python\n")[1:]]


def test_prose_becomes_text_and_the_rest_code(literate):
    page = literate.render(SOURCE, Path("projects/tutorials/sheep.py"))

    assert "\n# Counting sheep\n\nThey jump.\n" in page
    assert "\n## A class\n\nwith prose in it.\n" in page
    assert "\nEvery sheep has four.\n" in page  # without the indentation of the class
    first, second, third = code_blocks(page)
    assert first == "import math"
    assert second == 'class Sheep:\n    """Stays code."""\n\n    LEGS = 4'
    assert third.startswith("    def jump(self):")
    assert '"""Stays code, too."""' in third


def test_pages_are_written_once_and_found_stale_after_a_change(literate, repository, capsys):
    assert literate.main(["--check"], repository) == 1
    assert "sheep.md: missing" in capsys.readouterr().err

    assert literate.main([], repository) == 0
    assert [path.name for path in (repository / "docs" / "tutorials").iterdir()] == ["sheep.md"]
    assert literate.main(["--check"], repository) == 0

    source = repository / "projects" / "tutorials" / "sheep.py"
    source.write_text(SOURCE.replace("They jump.", "They sleep."))
    assert literate.main(["--check"], repository) == 1
    assert "sheep.md: older than its tutorial" in capsys.readouterr().err

    source.unlink()
    assert literate.main(["--check"], repository) == 1
    assert "sheep.md: its tutorial is gone" in capsys.readouterr().err


def test_committed_pages_are_fresh(literate):
    """If this fails: python scripts/literate.py."""
    assert literate.stale_pages(ROOT) == []
