"""The texts of a run: people read them in Prefect's UI and in a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from lab.endpoint import Endpoint, call_with_curl, call_with_python
from lab.record import LabRecord
from lab.report.cost import CostReport, load_prices
from lab.report.critical_path import StageTime
from lab.report.model import LabReport, ModelResult, Verdict
from lab.settings import Settings
from tasks import publish
from workstation.view import show_report

ENDPOINT = Endpoint.of("demo", "203.0.113.10", "-----BEGIN CERTIFICATE-----\npublic\n")
AT = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
STAGES = [
    StageTime(name="preflight", started_at=AT, seconds=1.0),
    StageTime(name="plan image", started_at=AT + timedelta(seconds=3), seconds=0.5),
    StageTime(name="foundation", started_at=AT + timedelta(seconds=3.5), seconds=4.0),
    StageTime(name="provision", started_at=AT + timedelta(seconds=3.5), seconds=30.25),
]


def cost() -> CostReport:
    record = LabRecord(lab="demo", created_at=AT, expires_at=AT + timedelta(hours=2))
    return load_prices(Settings().prices_path).report(record, AT + timedelta(hours=1))


def report() -> LabReport:
    return LabReport(
        lab="demo",
        target="local",
        endpoint=ENDPOINT.url,
        ca=ENDPOINT.ca,
        created_at=AT,
        expires_at=AT + timedelta(hours=2),
        stages=STAGES,
        models=[ModelResult(alias="one", model_id="vendor.one", verdict=Verdict.OK)],
        cost=cost(),
    )


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def keep(content: Any, *, key: str, description: str) -> None:
        assert description
        found[key] = content

    monkeypatch.setattr(publish, "create_markdown_artifact", keep)
    monkeypatch.setattr(publish, "create_table_artifact", keep)
    monkeypatch.setattr(publish, "write_report", lambda *_: None)
    return found


def cells(text: str) -> list[list[str]]:
    """Every row of every table in ``text``."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_the_stages_show_what_the_run_waited_for(published: dict[str, Any]) -> None:
    """should account for each second of the run, in the table under the chart"""
    publish.publish_report(report(), Settings())
    text = published["lab-demo-stages"]
    assert text.startswith("```mermaid\ngantt")
    rows = {row[0]: row[1:] for row in cells(text)}
    assert rows["preflight"][:3] == ["12:00:00", "1.0 s", "1.0 s"]
    assert rows["between stages"][:3] == ["12:00:01", "-", "2.0 s"]
    assert rows["foundation"] == ["12:00:03", "4.0 s", "-", ""]
    assert rows["provision"][:3] == ["12:00:03", "30.2 s", "30.2 s"]
    assert "Terraform" in rows["provision"][3]
    assert "the run waited 33.8 s" in text


def test_a_run_without_stages_is_published_too(published: dict[str, Any]) -> None:
    """should not fail if an up failed before its first stage ended"""
    publish.publish_report(report().model_copy(update={"stages": [], "cost": None}), Settings())
    assert "gantt" in published["lab-demo-stages"]
    assert "Cost" not in published["lab-demo-endpoint"]


def test_the_endpoint_shows_what_the_lab_costs(published: dict[str, Any]) -> None:
    """should have the lab's cost, the saving by its end, and the price of every choice"""
    publish.publish_report(report(), Settings())
    text = published["lab-demo-endpoint"]
    rows = {row[0]: row[1:] for row in cells(text)}
    assert "USD an hour" in rows["Cost"][0]
    assert "so far" in rows["Cost"][0]
    assert "day and night" in rows["Saved by its end"][0]
    assert {"x86_64", "arm64"} <= set(rows)
    assert "(this lab)" in rows["x86_64"][0]
    assert "https://aws.amazon.com/fargate/pricing/" in text
    assert "2025-11-01" in rows["Prices"][0]


def test_the_endpoint_shows_all_that_a_caller_needs(published: dict[str, Any]) -> None:
    """should name address, authority, name and the key's place, and have no key"""
    publish.publish_report(report(), Settings())
    text = published["lab-demo-endpoint"]
    assert "| Base URL | `https://203.0.113.10:4000/v1` |" in text
    for line in (
        "export OPENAI_BASE_URL=https://203.0.113.10:4000/v1",
        "export LAB_ADDRESS=203.0.113.10",
        "export LAB_TLS_NAME=gateway-lab-demo.internal",
        "export LAB_CA_FILE=ca.pem",
        "cat > ca.pem <<'CA'\n-----BEGIN CERTIFICATE-----\npublic\nCA\n",
        "`gateway-lab-demo/gateway-key`",
        call_with_curl("one"),
        call_with_python("one"),
    ):
        assert line in text
    assert "sk-" not in text


def test_a_live_lab_shows_the_same(published: dict[str, Any]) -> None:
    """should have the cost in one table with the rest, and the choices in their own table"""
    live = publish.LiveLab(
        lab="demo",
        owner="me",
        endpoint=ENDPOINT,
        ready=True,
        created_at=AT,
        expires_at=AT + timedelta(hours=2),
        left="1h",
        models=["one"],
        allowed=["203.0.113.1/32"],
        deployer=None,
        deployer_allowed=None,
        cost=cost(),
    )
    publish.publish_live(live)
    text = published["lab-demo-endpoint"]
    assert {"Base URL", "Cost", "Saved by its end", "Prices", "Owner", "x86_64"} <= {
        row[0] for row in cells(text)
    }
    publish.publish_report(report(), Settings())
    how = "`make env LAB=demo`"
    assert text.partition(how)[2] in published["lab-demo-endpoint"]
    block = text[text.index("| Base URL") : text.index("| Owner")]
    assert "\n\n" not in block


@pytest.mark.parametrize("known", [cost(), None])
def test_a_destroyed_lab_shows_what_it_cost(
    published: dict[str, Any], known: CostReport | None
) -> None:
    """should show the cost of a lab that had a record, and nothing for a lab without one"""
    publish.publish_teardown("demo", ["ECS"], [], known)
    text = published["lab-demo-teardown"]
    assert "nothing left" in text
    assert "- ECS" in text
    assert ("Saved by its end" in text) is (known is not None)


def test_the_terminal_shows_both_within_80_columns() -> None:
    """should show the account of the run and its cost where most people look first"""
    out = StringIO()
    show_report(report(), "http://127.0.0.1:4200", Console(file=out, width=80))
    text = out.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 80
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if "│" in line}
    assert lines["provision"].split("│")[2:4] == ["    30.2 ", "   30.2 "]
    assert lines["foundation"].split("│")[2:4] == ["     4.0 ", "        "]
    assert lines["between them"].split("│")[3].strip() == "2.0"
    assert lines["all"].split("│")[2:4] == ["    33.8 ", "   33.8 "]
    assert "(this lab)" in lines["x86_64"]
    assert "Saved by its end:" in text
