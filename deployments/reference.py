"""Writes ``docs/reference.md`` from the code: facts from several places, collected in one.

Run as ``python -m deployments.reference``, or by ``make reference``. A test compares.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object

import tasks
from lab.durations import format_duration
from lab.posture import CheckName
from lab.report.critical_path import AFTER, SPENT_ON
from lab.settings import ROOT, Settings
from tasks.outcome import STAGES
from workstation.exit_codes import ExitCode

REFERENCE = ROOT / "docs" / "reference.md"
_STAGE = re.compile(r"^- ([\w ]+) \((\w+)\): (.+?) May not (.+)$")
_TARGET = re.compile(r"^([a-z-]+):.*?## (.*)$", re.MULTILINE)


def reference() -> str:
    """The whole document. Equal code gives equal text."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    parts = [
        "# Reference",
        "Generated from the code by `make reference`; a test compares. Other documents link here.",
        "## Flows",
        "Each flow is a deployment for each target, `FLOW/TARGET`, such as `lab-up/local`.",
        _table(("Flow", "What it does", "When it runs"), _flows(deployments)),
        "## Parameters",
        "Of the flows, in the form of Prefect's UI and as `--param NAME=VALUE`. "
        "Lists are JSON: `--param 'models=[\"bedrock-titan\"]'`.",
        *_parameters(deployments),
        "## Settings",
        "The flows read them from their environment: `prefect.yaml` gives some for the target, and "
        "the rest comes from the environment in which the worker was started. Durations are "
        "written as in `00:10:00` or `PT10M`. The source is `lab/settings.py`.",
        _table(("Variable", "Meaning", "Default", "On the local cloud"), _settings(deployments)),
        "Two more are not read by the flows: `LAB_PREFECT_PORT`, the port of the Prefect server "
        "(4200), and `LAB`, the lab of `make demo` and `make env` (`demo`).",
        "## Stages",
        "The stages of an up, in the order in which they begin, and then those of other flows. "
        "A stage waits for those in the third column.",
        _table(
            ("Stage", "What it does", "Waits for", "It may not", "Its seconds go to"), _stages()
        ),
        "## Posture checks",
        "Made at the end of each up, and by `lab-verify`. A check that cannot be made counts as "
        "missed.",
        _table(("Check", "It passes if"), ((f"`{c.value}`", c.passes_if) for c in CheckName)),
        "## Exit codes",
        _table(("Code", "Meaning"), ((str(int(c)), c.meaning) for c in ExitCode)),
        "## Make targets",
        _table(("Command", "What it does"), _make_targets()),
    ]
    return "\n\n".join(parts) + "\n"


def _flows(deployments: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for name, of_flow in _by_flow(deployments).items():
        first = of_flow[0]
        when = ["on request"]
        if "triggers" in first:
            when = ["on request; at the lab's end", "after a failed up"]
        every = {_schedule(d, s) for d in of_flow for s in d.get("schedules", [])}
        guards = first["tags"][0].startswith("guard")
        yield (
            f"`{name}`",
            first["description"],
            "; ".join(sorted(every) if guards else when + sorted(every)),
        )


def _schedule(deployment: dict[str, Any], schedule: dict[str, Any]) -> str:
    if "interval" in schedule:
        return f"every {format_duration(timedelta(seconds=schedule['interval']))}"
    name = deployment["name"].rpartition("-")[0]
    when = f"`{schedule['cron']}` ({schedule['timezone']})"
    return f"as `{name}-TARGET` by {when}, off until switched on"


def _by_flow(deployments: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for deployment in deployments:
        found.setdefault(_flow_of(deployment).name, []).append(deployment)
    return found


def _flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    path, _, name = deployment["entrypoint"].partition(":")
    found = import_object(f"{path.removesuffix('.py').replace('/', '.')}.{name}")
    assert isinstance(found, Flow)
    return found


def _parameters(deployments: list[dict[str, Any]]) -> Iterator[str]:
    """A table for each set of parameters, under the flows that take it."""
    tables: dict[str, list[str]] = {}
    for name, of_flow in _by_flow(deployments).items():
        schema = parameter_schema(_flow_of(of_flow[0])).model_dump()
        if schema["properties"]:
            rows = _table(("Parameter", "Meaning", "Allowed", "Default"), _parameter_rows(schema))
            tables.setdefault(rows, []).append(f"`{name}`")
        else:
            tables.setdefault("No parameters.", []).append(f"`{name}`")
    for rows, names in tables.items():
        yield f"### {', '.join(names)}"
        yield rows


def _parameter_rows(schema: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    definitions = schema.get("definitions", {})
    for name, field in schema["properties"].items():
        required = name in schema.get("required", [])
        default = "required" if required else _shown(field.get("default"))
        yield f"`{name}`", field.get("description", ""), _bounds(field, definitions), default


def _bounds(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "anyOf" in field:
        parts = [_bounds({**one, **_bound(field)}, definitions) for one in field["anyOf"]]
        return " or ".join(part for part in parts if part != "nothing")
    if "$ref" in field:
        field = {**field, **definitions[field["$ref"].rpartition("/")[2]]}
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    if field.get("type") == "array":
        most = f", at most {field['maxItems']}" if "maxItems" in field else ""
        return f"a list{most}"
    if "minimum" in field:
        return f"{field['minimum']} to {field['maximum']}"
    # The meaning of a text parameter describes its form.
    kinds = {"boolean": "`true`, `false`", "null": "nothing", "integer": "a number"}
    return kinds.get(field.get("type", ""), "text")


def _bound(field: dict[str, Any]) -> dict[str, Any]:
    return {key: field[key] for key in ("minimum", "maximum") if key in field}


def _settings(deployments: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    local = next(d for d in deployments if d["name"] == "local")["work_pool"]["job_variables"][
        "env"
    ]
    for name, field in Settings.model_fields.items():
        variable = f"LAB_{name.upper()}"
        own = str(local[variable]) if variable in local else ""
        given = "this machine's" if "{{" in own else f"`{own}`" if own else ""
        yield f"`{variable}`", field.description or "", _shown(field.default), given


def _stages() -> Iterator[tuple[str, ...]]:
    described = stage_docs()
    others = [name for name in described if name not in STAGES]
    for name in (*STAGES, *others):
        _, does, not_allowed = described[name]
        after = ", ".join(AFTER.get(name, ())) or "-"
        yield f"`{name}`", does, after, not_allowed, SPENT_ON.get(name, "-")


def stage_docs() -> dict[str, tuple[str, str, str]]:
    """For each stage in the docstring of ``tasks``: module, what it does, what it may not do."""
    text = re.sub(r"\n  (?=\S)", " ", inspect.getdoc(tasks) or "")
    found = (_STAGE.match(line) for line in text.splitlines())
    return {m[1]: (m[2], m[3], m[4]) for m in found if m}


def _make_targets() -> Iterator[tuple[str, str]]:
    for name, text in _TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")):
        yield f"`make {name}`", text


def _shown(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case timedelta():
            return format_duration(value)
        case Path():
            return f"`{value.relative_to(ROOT)}` in the project"
        case tuple() if len(value) > 2:
            return f"{len(value)} services, see the source"
        case tuple():
            return f"`{list(value)}`"
        case _ if callable(value) or type(value).__name__ == "PydanticUndefinedType":
            return "none"
        case _:
            return f"`{value}`"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in line)} |"
        for line in lines
    )


def main() -> int:
    """Write the document; return 0."""
    REFERENCE.write_text(reference(), encoding="utf-8")
    sys.stdout.write(f"{REFERENCE.relative_to(ROOT)} is written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
