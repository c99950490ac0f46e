"""What a person sees in Prefect's UI, from the first page to a cancelled run. Tests go in order.

Each keeps a picture; `make screenshots` puts them where docs/run.md shows them.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import expect

from lab import names
from lab.fargate import TASK_SIZES, Capacity
from lab.report.critical_path import critical_path
from lab.spec import LabSpec
from tests.observe import wait_until
from tests.shared_lab import LAB, SharedLab
from tests.stack import Stack
from tests.ui.prefect_ui import PrefectUi
from workstation import prefect_api

CANCELLED = "uicancel"
OWNER = "trainer"
# A worker's process imports Prefect before its flow runs.
START_MS = 120_000
UP_MS = 300_000


def test_deployments_and_their_schedules(ui: PrefectUi) -> None:
    """should open the newer UI, with each flow of a target and when it runs by itself."""
    ui.open_home()
    expect(ui.page).to_have_url(re.compile(r"/v2/dashboard"))
    ui.list_deployments("local")
    for flow in ("up", "down", "extend", "rebuild", "reap", "verify", "watch", "list"):
        expect(ui.deployment_row(f"lab-{flow}", "local")).to_contain_text("Ready")
    expect(ui.deployment_row("lab-down", "local")).not_to_contain_text("schedules")
    for flow, when in (
        ("lab-watch", "Active Every 3 minutes"),
        ("lab-reap", "Active Every 5 minutes"),
    ):
        ui.deployment_row(flow, "local").get_by_text("1 schedules").hover()
        expect(ui.page.get_by_role("button", name=when, exact=True)).to_be_visible()
    ui.picture("deployments")
    # A page has ten of them.
    ui.list_deployments("nightly-local")
    expect(ui.deployment_row("lab-rebuild", "nightly-local")).to_contain_text("1 schedules")


def test_the_nightly_lab_waits_for_its_switch(ui: PrefectUi) -> None:
    """should tell in words when the nightly lab would come, with its switch off."""
    ui.open_deployment("lab-rebuild", "nightly-local")
    switch = ui.page.get_by_role("switch", name=re.compile("06:30 AM, Monday through Friday"))
    expect(switch).not_to_be_checked()
    ui.page.get_by_role("tab", name="Description").click()
    panel = ui.page.get_by_role("tabpanel", name="Description")
    expect(panel).to_contain_text("Off until its schedule is switched on")
    ui.picture("nightly")


def test_the_form_of_lab_up(ui: PrefectUi) -> None:
    """should describe each field, and offer what it takes where that can be listed."""
    ui.page.set_viewport_size({"width": 1280, "height": 1240})
    ui.open_custom_run("lab-up", "local")
    form = ui.page.locator("main")
    for name, field in LabSpec.model_json_schema()["properties"].items():
        expect(form.get_by_text(field["description"], exact=True), name).to_be_visible()
    expect(form.get_by_role("textbox", name="Lab", exact=True)).to_have_value("demo")
    expect(form.get_by_label("Time to live")).to_have_value("2h")
    ui.picture("form")
    for field, offered in {
        "CPU units": [str(cpu) for cpu in TASK_SIZES],
        "Capacity": [capacity.value for capacity in Capacity],
        "On failure": ["keep", "destroy"],
    }.items():
        form.get_by_role("button", name=f"Select {field}").click()
        expect(ui.page.get_by_role("option")).to_have_text(offered)
        ui.page.keyboard.press("Escape")


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        ("Lab", "Team A!", "'Team A!' does not match"),
        ("Time to live (Optional)", "soon", "'soon' does not match"),
    ],
)
def test_the_form_refuses_what_no_lab_can_be(
    ui: PrefectUi, field: str, value: str, refusal: str
) -> None:
    """should keep the form open, make no run, and say at the field what was wrong."""
    before = runs_of("lab-up/local")
    ui.open_custom_run("lab-up", "local")
    form = ui.page.locator("main")
    form.get_by_label(field, exact=True).fill(value)
    ui.page.get_by_role("button", name="Submit").click()
    notice = ui.page.get_by_role("region", name=re.compile("Notifications"))
    expect(notice).to_contain_text("Error creating flow run")
    expect(notice).to_contain_text(refusal)
    expect(form.get_by_role("paragraph").filter(has_text=refusal)).to_be_visible()
    expect(ui.page).to_have_url(re.compile(r"/run(\?|$)"))
    assert runs_of("lab-up/local") == before
    if field == "Lab":
        form.get_by_label(field, exact=True).scroll_into_view_if_needed()
        ui.picture("refused")


def test_the_form_knows_the_least_memory(ui: PrefectUi) -> None:
    """should not be sent with less memory than any task has."""
    ui.open_custom_run("lab-up", "local")
    field = ui.page.locator("main").get_by_label("Memory in MiB (Optional)", exact=True)
    field.fill("100")
    ui.page.get_by_role("button", name="Submit").click()
    assert "512" in field.evaluate("field => field.validationMessage")
    expect(ui.page).to_have_url(re.compile(r"/run(\?|$)"))


def test_a_lab_comes_up_from_the_form(ui: PrefectUi, shared: SharedLab) -> None:
    """should show the run under way: its tasks in words and as a graph, then its artifacts."""
    # A lab is up before the page, which reads the tasks twice a minute, shows that it was coming.
    # The owner is new to a lab that is up already, so that Terraform has to work.
    with shared.stack.state_locked(LAB):
        run = start(ui, shared.stack, LAB)
        expect(title(ui, LAB)).to_be_visible(timeout=START_MS)
        expect(ui.state("Running")).to_be_visible(timeout=START_MS)
        wait_until(
            lambda: state_of(run, f"provision-{LAB}") == "Running", 60, "Terraform to be waited for"
        )
        tasks = ui.open_task_runs(run)
        provision = tasks.filter(has_text=f"provision-{LAB}")
        expect(provision.filter(has_text="Running")).to_be_visible()
        ended = tasks.filter(has_text=f"schedule-end-{LAB}").filter(has_text="Completed")
        expect(ended).to_be_visible()
        expect(ui.page.get_by_text(re.compile(r"\(.*\d Running.*\)"))).to_be_visible()
        wait_until(lambda: ui.graph_pixels() > 1000, 30, "tasks in the graph")
        ui.picture("running")

    expect(ui.state("Completed")).to_be_visible(timeout=UP_MS)
    shared.came_up()
    asked = ui.open_task_runs(run).filter(has_text="validate-bedrock-titan-lite")
    expect(asked.filter(has_text="Completed")).to_be_visible()
    ui.open_run(run, "Artifacts")
    for what in ("endpoint", "models", "stages"):
        expect(ui.page.get_by_text(names.artifact_key(LAB, what), exact=True).first).to_be_visible()
    wait_until(lambda: ui.graph_pixels() > 1000, 30, "tasks in the graph")
    ui.picture("completed")


def test_the_endpoint_and_how_to_call_it(ui: PrefectUi, stack: Stack) -> None:
    """should tell base URL, end and secret, with lines to copy."""
    endpoint = stack.report(LAB).endpoint
    panel = ui.open_artifact(names.artifact_key(LAB, "endpoint"))
    expect(panel.get_by_role("heading", name=f"Lab {LAB}")).to_be_visible()
    expect(panel.get_by_role("row", name=f"Base URL {endpoint}/v1")).to_be_visible()
    expect(panel.get_by_text(names.key_secret(LAB), exact=True)).to_be_visible()
    expect(panel.get_by_role("row", name="Saved by its end")).to_be_visible()
    around = panel.bounding_box()
    assert around
    for table in panel.locator("table").all():
        inside = table.bounding_box()
        assert inside
        assert inside["width"] <= around["width"], "the table runs over its panel"
    code = panel.locator("pre code")
    expect(code.first).to_contain_text(f"export OPENAI_BASE_URL={endpoint}/v1")
    expect(code.first).to_contain_text("BEGIN CERTIFICATE")
    expect(code.nth(1)).to_contain_text('curl --cacert "$LAB_CA_FILE"')
    expect(code.nth(2)).to_contain_text("OpenAI(http_client=http)")
    ui.picture("endpoint")


def test_what_each_model_answered(ui: PrefectUi, stack: Stack) -> None:
    """should have a row a model, with its verdict and times in view."""
    panel = ui.open_artifact(names.artifact_key(LAB, "models"))
    for model in stack.report(LAB).models:
        row = panel.get_by_role("row").filter(
            has=ui.page.get_by_role("cell", name=model.alias, exact=True)
        )
        expect(row.get_by_role("cell").nth(1)).to_have_text("ok")
        expect(row.get_by_role("cell", name=f"{model.total_ms:.0f} ms").first).to_be_in_viewport()
    ui.picture("models")


def test_the_stages_are_a_chart(ui: PrefectUi, stack: Stack) -> None:
    """should draw a bar a stage, with words large and light enough to be read."""
    panel = ui.open_artifact(names.artifact_key(LAB, "stages"))
    chart = panel.locator("svg[aria-roledescription=gantt]")
    expect(chart).to_be_visible()
    stages = stack.report(LAB).stages
    expect(chart.locator("rect.task")).to_have_count(len(stages))
    for stage in stages:
        words = chart.locator("text[class*=taskText]").filter(
            has_text=re.compile(rf"^{stage.name} \([\d.hms]+\)\s*$")
        )
        expect(words).to_be_in_viewport()
        box = words.bounding_box()
        assert box
        assert box["height"] >= 12, f"{stage.name} is written too small"
    beside = chart.locator("text.taskTextOutsideRight").first
    expect(beside).to_have_css("fill", "rgb(226, 232, 240)")
    waited_for = {step.name for step in critical_path(stages) if step.is_stage}
    path = chart.locator("rect.task[class*=crit]")
    expect(path).to_have_count(len(waited_for))
    expect(path.first).to_have_css("fill", "rgb(252, 211, 77)")
    beside_it = chart.locator("rect.task:not([class*=crit])")
    expect(beside_it.first).to_have_css("fill", "rgb(134, 239, 172)")
    expect(panel.get_by_text("are the critical path")).to_be_attached()
    ui.picture("stages")


def test_the_table_of_all_labs(ui: PrefectUi, stack: Stack) -> None:
    """should be made by a click on lab-list, and show where a lab is, how long and for how much."""
    ui.open_deployment("lab-list", "local")
    ui.page.get_by_role("button", name="Run", exact=True).click()
    ui.page.get_by_role("menuitem", name="Quick run").click()
    ui.open_started_run()
    expect(ui.state("Completed")).to_be_visible(timeout=UP_MS)
    panel = ui.open_artifact("labs")
    headers = panel.get_by_role("columnheader")
    expect(headers.first).to_have_text("lab")
    row = panel.get_by_role("row").filter(has=ui.page.get_by_role("cell", name=LAB, exact=True))
    expect(row.get_by_role("cell").nth(1)).to_have_text("up")
    expect(row).to_contain_text(f"{stack.report(LAB).endpoint}/v1")
    expect(row).to_contain_text(OWNER)
    expect(headers.filter(has_text="USD an hour")).to_be_in_viewport()
    expect(headers.filter(has_text="USD so far")).to_be_in_viewport(ratio=0.1)
    ui.picture("labs")


def test_cancelling_an_up_from_its_page(ui: PrefectUi, stack: Stack) -> None:
    """should end Terraform gracefully, free the lab, and keep the lab's end."""
    lock = f"{names.lab_state_key(CANCELLED)}.tflock"
    run = start(ui, stack, CANCELLED)
    wait_until(lambda: read_object(stack, lock), 120, "Terraform at work", every=0.2)
    assert held_by(stack) == run
    ui.page.get_by_role("main").get_by_role("button", name="Open menu").first.click()
    ui.page.get_by_role("menuitem", name="Cancel", exact=True).click()
    dialog = ui.page.get_by_role("alertdialog", name="Cancel Flow Run")
    expect(dialog).to_contain_text(f"cancel up {CANCELLED}")
    dialog.get_by_role("button", name="Cancel Flow Run").click()
    expect(ui.state("Cancelled")).to_be_visible(timeout=120_000)
    tasks = ui.open_task_runs(run)
    expect(tasks.filter(has_text=f"schedule-end-{CANCELLED}").first).to_contain_text("Completed")
    wait_until(lambda: ui.graph_pixels() > 1000, 30, "tasks in the graph")
    ui.picture("cancelled")

    wait_until(lambda: read_object(stack, lock) is None, 60, "Terraform to give its lock back")
    wait_until(lambda: held_by(stack) is None, 60, "the run to give the lab back")
    state = json.loads(read_object(stack, names.lab_state_key(CANCELLED)) or b'{"resources": []}')
    known = [
        one["attributes"]["id"]
        for resource in state["resources"]
        if resource["type"] == "aws_vpc"
        for one in resource["instances"]
    ]
    there = [vpc["VpcId"] for vpc in vpcs(stack, CANCELLED)]
    assert there == known, "Terraform, ended gracefully, writes down what it has made"

    ui.open_deployment("lab-down", "local")
    ui.page.get_by_role("tab", name="Upcoming").click()
    panel = ui.page.get_by_role("tabpanel", name="Upcoming")
    end = panel.get_by_role("listitem").filter(has_text=f"end of {CANCELLED}").first
    expect(end).to_contain_text("Scheduled")
    ui.picture("upcoming")
    assert stack.down(CANCELLED).code == 0


def start(ui: PrefectUi, stack: Stack, lab: str) -> str:
    """Start ``lab-up`` for ``lab`` from its form; the run, whose page is open."""
    stack.made.add(lab)
    ui.open_custom_run("lab-up", "local")
    form = ui.page.locator("main")
    form.get_by_label("Lab", exact=True).fill(lab)
    form.get_by_label("Time to live (Optional)").fill("45m")
    form.get_by_label("Owner (Optional)").fill(OWNER)
    return ui.submit()


def title(ui: PrefectUi, lab: str) -> Any:
    """The run's name in the path at the top of its page."""
    path = ui.page.locator("main").get_by_role("navigation", name="breadcrumb").first
    return path.get_by_text(f"up {lab}", exact=True)


def runs_of(deployment: str) -> int:
    with prefect_api.Api() as api:
        found = api.deployment(deployment)
        assert found is not None
        return int(
            api._ask("POST", "/flow_runs/count", {"deployments": {"id": {"any_": [found["id"]]}}})
        )


def state_of(run: str, task: str) -> str | None:
    """The state of the task run ``task`` of the flow run ``run``; ``None`` before there is one."""
    with prefect_api.Api() as api:
        found = [one["state_name"] for one in api.task_runs(run) if one["name"] == task]
    return str(found[0]) if found else None


def read_object(stack: Stack, key: str) -> bytes | None:
    found = stack.bucket.read(key)
    return found[0] if found else None


def vpcs(stack: Stack, lab: str) -> list[Any]:
    tagged = [{"Name": f"tag:{names.TAG_LAB}", "Values": [lab]}]
    return list(stack.session().client("ec2").describe_vpcs(Filters=tagged)["Vpcs"])


def held_by(stack: Stack) -> str | None:
    """The run that holds the lab ``CANCELLED``; its lease must exist."""
    lease = read_object(stack, f"leases/{CANCELLED}.json")
    assert lease is not None
    holder = json.loads(lease)["holder"]
    return holder and str(holder["run"])
