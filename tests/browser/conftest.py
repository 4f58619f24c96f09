"""A real browser, if one can be had: Debian's chromium, driven by Playwright (`pip install -e ".[browser]"`)."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",  # which chromium does not get as root, in a container
    "--use-gl=angle",  # WebGL by software, on machines without a graphics card
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]


@pytest.fixture(scope="session")
def browser():
    """A running chromium; the test is skipped, saying why, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason='no Playwright: pip install -e ".[browser]"')
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        pytest.skip("no chromium: apt-get install -y chromium")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def web_page(browser):
    """An empty page on which no script may fail."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    failures = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    page.close()
    assert failures == []


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory):
    """Where screenshots are kept: the folder that the variable ARTEFACTS names, else pytest's."""
    folder = Path(os.environ.get("ARTEFACTS") or tmp_path_factory.mktemp("artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
