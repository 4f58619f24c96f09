"""The pages of the documentation name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "benchmarks/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILE_IN_REPOSITORY = re.compile(
    r"`((?:allenact|allenact_plugins|projects|configs|tests|scripts|benchmarks|docs)/[\w./-]*\w/?)`"
)
FILE_IN_CORE = re.compile(r"`((?:onpolicy_sync|base_abstractions|pipeline|utils)/[\w./-]*\w/?)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_file_names_exist(page):
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    wanted = [page.parent / link for link in links if link]
    wanted += [ROOT / name for name in FILE_IN_REPOSITORY.findall(text)]
    for name in FILE_IN_CORE.findall(text):
        wanted.append(ROOT / "allenact" / re.sub(r"^onpolicy_sync/", "algorithms/onpolicy_sync/", name))
    assert [str(path.relative_to(ROOT)) for path in wanted if not path.resolve().exists()] == []


def test_readme_is_short():
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") < 230
