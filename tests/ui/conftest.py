"""A real browser on Prefect's real pages. What it shows is kept as pictures."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.stack import Stack
from tests.ui.prefect_ui import PrefectUi
from workstation import prefect_api
from workstation.browser import ensure_browser

#: Chromium as root in a container, and without calls to its maker.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 30_000


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = ensure_browser(lambda text: sys.stderr.write(f"· {text}\n"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(stack: Stack, browser: Browser) -> Iterator[Page]:
    """An empty page of the size of a small screen, that reaches Prefect's server and no other."""
    with browser.new_context(
        viewport={"width": 1280, "height": 800}, locale="en-US", timezone_id="UTC"
    ) as context:
        # The UI tells its maker of every page that is opened.
        elsewhere = re.compile(rf"^(?!{re.escape(prefect_api.ui_url())}/|data:)")
        context.route(elsewhere, lambda route: route.abort())
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield context.new_page()


@pytest.fixture
def ui(
    page: Page, pictures: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[PrefectUi]:
    """Prefect's UI. The last page of a failed test is kept with the test's own files."""
    failures = request.session.testsfailed
    yield PrefectUi(page, pictures)
    if request.session.testsfailed > failures:
        last = tmp_path / "last.png"
        page.screenshot(path=last)
        sys.stderr.write(f"· {page.url} as the test saw it last: {last}\n")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: the folder that SCREENSHOTS names, or one that nobody keeps."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
