"""What a run publishes: artifacts in Prefect's UI, and the report on disk."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from adapters.aws.sweep import Leftover
from lab import names
from lab.durations import to_rfc3339
from lab.endpoint import Endpoint, call_with_curl, call_with_python
from lab.image.recipe import SBOM_PATH
from lab.live import LiveLab
from lab.posture import Posture
from lab.report.cost import CostReport, cost_rows, cost_words
from lab.report.critical_path import account
from lab.report.model import ImageScan, LabReport, write_report
from lab.report.tables import noted_rows, posture_rows, stage_chart
from lab.settings import Settings


def publish_report(report: LabReport, settings: Settings) -> None:
    """Write the report to disk, and its endpoint, models and stages as artifacts.

    Also called for a failed up; the endpoint artifact then says what failed.
    """
    home = settings.lab_home(report.lab)
    write_report(report, home)
    # The UI cuts a table at the page's width: important columns come first, notes come last.
    why = [] if report.passed else ["error"]
    first = ["model", "verdict", *why, "first token"]
    models = _in_order(noted_rows(report), first, ["Bedrock ID", "error", "note"])
    artifacts = [
        partial(
            create_markdown_artifact,
            _endpoint_text(report),
            key=names.artifact_key(report.lab, "endpoint"),
            description=f"Where lab {report.lab} answers, and until when.",
        ),
        partial(
            create_table_artifact,
            models or [{"model": "none was asked"}],
            key=names.artifact_key(report.lab, "models"),
            description=f"What each model of lab {report.lab} answered.",
        ),
        partial(
            create_markdown_artifact,
            f"```mermaid\n{stage_chart(report.stages)}\n```\n\n{_stage_table(report)}",
            key=names.artifact_key(report.lab, "stages"),
            description=f"How long each stage of lab {report.lab} took, and what the run waited"
            " for.",
        ),
    ]
    if report.scan is not None:
        artifacts.append(
            partial(
                create_markdown_artifact,
                _sbom_text(report, report.scan, home),
                key=names.artifact_key(report.lab, "sbom"),
                description=f"What is in the image of lab {report.lab}, and what is known of it.",
            )
        )
    _make_in_parallel(artifacts)


def _make_in_parallel(artifacts: Sequence[Callable[[], object]]) -> None:
    """Make all artifacts of the current run at once, to wait for Prefect's server only once."""
    with ThreadPoolExecutor(len(artifacts)) as pool:
        made = [pool.submit(copy_context().run, artifact) for artifact in artifacts]
    for one in made:
        one.result()


def publish_live(live: LiveLab) -> None:
    """Publish the endpoint artifact of a lab as it is now."""
    state = "ready" if live.ready else "not ready"
    firewall = ", ".join(live.allowed) or "nobody"
    if live.deployer_allowed is False:
        firewall += f" (not {live.deployer}, which is the deployer's address now)"
    if live.moved_from:
        firewall += f" (moved with the deployer, who was at {live.moved_from} before)"
    models = ", ".join(live.models)
    if live.ending:
        models += f" (Bedrock retires {', '.join(live.ending)})"
    create_markdown_artifact(
        f"""# Lab {live.lab}: {state if live.endpoint else "no task runs"}

| | |
|---|---|
| Base URL | `{f"{live.endpoint.url}/v1" if live.endpoint else "-"}` |
| Models | {models} |
| Open to | {firewall} |
| Ends | {to_rfc3339(live.expires_at)} (in {live.left}) |
{_cost_lines(live.cost)}| Owner | {live.owner} |

{_choices(live.cost)}
{_how_to_call(live.lab, live.endpoint, live.models) if live.endpoint else ""}""",
        key=names.artifact_key(live.lab, "endpoint"),
        description=f"Where lab {live.lab} answers, and until when.",
    )


def publish_posture(lab: str, posture: Posture) -> None:
    """Publish the table of the lab's checks. In Markdown, where long cells are not cut."""
    rows = [
        {column: " ".join(text.replace("|", "\\|").split()) for column, text in row.items()}
        for row in posture_rows(posture)
    ]
    create_markdown_artifact(
        f"# Posture of lab {lab}: {posture.summary}\n\n{_table(rows)}",
        key=names.artifact_key(lab, "posture"),
        description=f"What the cloud and the gateway say of lab {lab}, and what they should.",
    )


def publish_notice(lab: str, text: str) -> None:
    """Publish the artifact that says that the lab ends soon."""
    create_markdown_artifact(
        f"# Lab {lab} ends soon\n\n{text}\n",
        key=names.artifact_key(lab, "notice"),
        description=f"The last notice before the end of lab {lab}.",
    )


def publish_labs(rows: list[dict[str, str]]) -> None:
    """Publish the table of all labs. The UI cuts it: important columns come first."""
    first = ["lab", "state", "left", "endpoint"]
    last = ["ends", "age", "owner", "held by"]
    create_table_artifact(
        _in_order(rows, first, last) or [{"lab": "there is none"}],
        key="labs",
        description="Every lab: where it answers, until when, and what it costs.",
    )


def publish_teardown(
    lab: str, looked_at: list[str], left: list[Leftover], cost: CostReport | None
) -> None:
    """Publish the artifact that says what is left of ``lab``, if anything, and what it cost."""
    looked = "\n".join(f"- {what}" for what in looked_at)
    if left:
        rows = "\n".join(f"| {item.kind} | `{item.name}` | `{item.command}` |" for item in left)
        text = (
            f"# Lab {lab}: {len(left)} things are left\n\n"
            f"| what | name | how to remove it |\n|---|---|---|\n{rows}\n\nLooked at:\n\n{looked}\n"
        )
    else:
        costs = f"| | |\n|---|---|\n{_cost_lines(cost)}\n" if cost else ""
        text = f"# Lab {lab}: nothing left\n\n{costs}Looked at:\n\n{looked}\n"
    create_markdown_artifact(
        text, key=names.artifact_key(lab, "teardown"), description=f"What is left of lab {lab}."
    )


def _in_order(
    rows: list[dict[str, Any]], first: list[str], last: list[str]
) -> list[dict[str, Any]]:
    """``rows``, each with the same columns: the UI takes the columns from the first row."""
    known = list(dict.fromkeys(name for row in rows for name in row))
    middle = [name for name in known if name not in (*first, *last)]
    columns = [name for name in (*first, *middle, *last) if name in known]
    return [{name: row.get(name, "-") for name in columns} for row in rows]


def _endpoint_text(report: LabReport) -> str:
    end = to_rfc3339(report.expires_at)
    if report.error:
        return (
            f"# Lab {report.lab} is not up\n\n```text\n{report.error}\n```\n\n"
            f"It will be destroyed at {end}.\n"
        )
    answered = sum(m.verdict == "ok" for m in report.models)
    endpoint = Endpoint(
        url=report.endpoint or "", tls_name=names.tls_name(report.lab), ca=report.ca or ""
    )
    return f"""# Lab {report.lab}

| | |
|---|---|
| Base URL | `{endpoint.url}/v1` |
| Models | {answered} of {len(report.models)} answered |
| Posture | {report.posture.summary if report.posture else "not looked at"} |
| Ends | {end} |
{_cost_lines(report.cost) if report.cost else ""}
{_choices(report.cost) if report.cost else ""}
{_how_to_call(report.lab, endpoint, [m.alias for m in report.models])}
Image:

```text
{report.image}
```
"""


def _sbom_text(report: LabReport, scan: ImageScan, folder: Path) -> str:
    notes = "".join(f"\n- {note}" for note in scan.notes)
    head = f"""# What is in the image of lab {report.lab}

| | |
|---|---|
| Image | `{report.image}` |
| Advisories | of {scan.advisories_of}, in `config/advisories.yaml` |
| Asked besides | {scan.audited_by} |
"""
    if scan.sbom is None:
        return f"{head}\nThe bill of materials is in the image, at `{SBOM_PATH}`.{notes}\n"
    return f"""{head}| Wheels | {scan.sbom.python_packages} |
| Debian packages | {scan.sbom.debian_packages} |

The bill of materials is CycloneDX, in the image at `{SBOM_PATH}` and here:

```text
{folder / scan.sbom.name}
sha256 {scan.sbom.sha256}
```
{notes}
"""


def _how_to_call(lab: str, endpoint: Endpoint, models: list[str]) -> str:
    alias = models[0] if models else "MODEL"
    variables = "\n".join(
        f"export {name}={shlex.quote(value)}"
        for name, value in endpoint.variables("ca.pem").items()
    )
    return f"""
`make env LAB={lab}` prints the environment that the calls below need. Without this project: put the
key, which is in Secrets Manager as `{names.key_secret(lab)}`, into `OPENAI_API_KEY`, and

```bash
{variables}
cat > ca.pem <<'CA'
{endpoint.ca.strip()}
CA
```

```bash
{call_with_curl(alias)}```

```python
{call_with_python(alias)}```
"""


def _cost_lines(cost: CostReport) -> str:
    """Rows of a table with two columns."""
    return "".join(f"| {what} | {words} |\n" for what, words in cost_words(cost).items())


def _choices(cost: CostReport) -> str:
    return f"{_table(cost_rows(cost))}\nSources: {', '.join(cost.sources)}\n"


def _table(rows: list[dict[str, str]]) -> str:
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[c] for c in columns] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _stage_table(report: LabReport) -> str:
    rows = [
        {
            "stage": f"{row.name} (failed)" if row.failed else row.name,
            "began (UTC)": f"{row.started_at:%H:%M:%S}",
            "took": "-" if row.took is None else f"{row.took:.1f} s",
            "the run waited": f"{row.waited:.1f} s" if row.waited else "-",
            "for": row.spent_on if row.waited else "",
        }
        for row in account(report.stages)
    ]
    if not rows:
        return ""
    waited = sum(row.waited for row in account(report.stages))
    return (
        f"{_table(rows)}\nThe amber stages are the critical path: the run waited {waited:.1f} s, "
        "and shortening any other would not have ended it sooner.\n"
    )
