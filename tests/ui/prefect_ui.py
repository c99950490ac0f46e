"""Prefect's UI as a person goes through it: by what is written on links, buttons and fields."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from workstation import prefect_api

#: What a picture in docs/run.md may weigh.
PICTURE_BYTES = 200_000

#: How many pixels of a PNG are of a colour that stands out: neither white, grey nor black. The
#: lowest tenth of a run's graph is left out: states and events are there also without any task.
_COLOURED = """async (url) => {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, image.width, 0.9 * image.height).data;
    let coloured = 0;
    for (let i = 0; i < data.length; i += 4) {
        const [r, g, b] = data.slice(i, i + 3);
        if (Math.max(r, g, b) - Math.min(r, g, b) > 60) coloured++;
    }
    return coloured;
}"""


class PrefectUi:
    """One browser page on Prefect's UI."""

    def __init__(self, page: Page, pictures: Path) -> None:
        self.page = page
        self._pictures = pictures

    def picture(self, name: str) -> None:
        """Keep what the page shows now."""
        self.page.evaluate("document.fonts.ready")
        shown = self.page.screenshot(animations="disabled")
        assert len(shown) < PICTURE_BYTES, f"{name} weighs {len(shown)} bytes"
        (self._pictures / f"{name}.png").write_bytes(shown)

    def open_home(self) -> None:
        """The address that `make demo` prints."""
        self.page.goto(prefect_api.ui_url())

    def list_deployments(self, search: str) -> None:
        """The deployments page, narrowed to those whose name has ``search`` in it."""
        self.open_home()
        self.page.get_by_role("link", name="Deployments").click()
        self.page.get_by_placeholder("Search deployments").fill(search)
        # Only the table's head is left of what has no such name: the list is the new one.
        others = self.page.get_by_role("row").filter(has_not_text=search)
        expect(others).to_have_count(1)

    def deployment_row(self, flow: str, name: str) -> Locator:
        """The row of the deployment ``flow/name`` on the deployments page."""
        has = self.page.get_by_role("link", name=name, exact=True)
        of = self.page.get_by_role("link", name=flow, exact=True)
        return self.page.get_by_role("row").filter(has=has).filter(has=of)

    def open_deployment(self, flow: str, name: str) -> None:
        """The page of the deployment ``flow/name``, from the list."""
        self.list_deployments(name)
        self.deployment_row(flow, name).get_by_role("link", name=name, exact=True).click()
        expect(self.page.get_by_role("button", name="Run", exact=True)).to_be_visible()

    def open_custom_run(self, flow: str, name: str) -> None:
        """The form of the deployment ``flow/name``."""
        self.open_deployment(flow, name)
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Custom run").click()
        expect(self.page.get_by_role("heading", name="Parameters")).to_be_visible()

    def submit(self) -> str:
        """Send the form; the ID of the run that it made, whose page is opened."""
        self.page.get_by_role("button", name="Submit").click()
        return self.open_started_run()

    def open_started_run(self) -> str:
        """The page of the run that the notice at the page's edge names; the run's ID."""
        self.page.get_by_role("region", name=re.compile("Notifications")).get_by_role(
            "link", name="View run"
        ).click()
        self.page.wait_for_url(re.compile("/runs/flow-run/"))
        return self.page.url.split("/runs/flow-run/")[1][:36]

    def open_run(self, run: str, tab: str) -> None:
        self.page.goto(f"{prefect_api.ui_url()}/v2/runs/flow-run/{run}")
        self.page.get_by_role("tab", name=tab).click()

    def open_task_runs(self, run: str) -> Locator:
        """The run's tasks as they are now, of which the page shows the newest."""
        self.open_run(run, "Task Runs")
        return self.page.get_by_role("tabpanel", name="Task Runs").get_by_role("listitem")

    def state(self, name: str) -> Locator:
        """The badge of the run's state, below the path at the top of the run's page."""
        path = self.page.locator("main").get_by_role("navigation", name="breadcrumb").first
        return path.locator("xpath=..").get_by_text(name, exact=True)

    def graph_pixels(self) -> int:
        """How many coloured pixels the tasks of the run's graph have; they are painted, no text."""
        shown = base64.b64encode(self.page.locator("main canvas").screenshot()).decode()
        return int(self.page.evaluate(_COLOURED, f"data:image/png;base64,{shown}"))

    def open_artifact(self, key: str) -> Locator:
        """The newest artifact of ``key``; its panel."""
        self.page.goto(f"{prefect_api.ui_url()}/v2/artifacts/key/{key}")
        self.page.locator("main a[href*='/artifacts/artifact/']").first.click()
        return self.page.get_by_role("tabpanel", name="Artifact")
