"""The local cloud's trail of all calls and callers, and the recording that is made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workstation.deployer import ACCOUNT, USER
from workstation.policy import FREE, Recorded, read_rights
from workstation.targets import state_home

DEPLOYER = f"arn:aws:iam::{ACCOUNT}:user/{USER}"
#: Calls outside of any stage: above all, those that hold a lab.
BETWEEN = "between stages"

#: Texts that differ from run to run, and what replaces them.
_VARYING = [
    (re.compile(rf"\b{ACCOUNT}\b"), "ACCOUNT"),
    (re.compile(r"\bus-east-1\b"), "REGION"),
    (re.compile(r"^arn:aws:"), "arn:PARTITION:"),
    (re.compile(r"\b(vpc|subnet|igw|rtb|sg|sgr|eni)-[0-9a-f]{8,}\b"), r"\1-ID"),
    (re.compile(r"\b[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"(task-definition/[\w-]+):\d+$"), r"\1:1"),
    (re.compile(r"(secret:[\w/-]+?)-\w{6}$"), r"\1-SUFFIX"),
]


def trail_path() -> Path:
    """The file that the local cloud writes."""
    return state_home() / "localcloud" / "trail.jsonl"


def read_trail(since: float = 0.0) -> list[dict[str, Any]]:
    """Every decision since then, for any caller; ``since`` is a time like ``time.time()``."""
    path = trail_path()
    entries: list[dict[str, Any]] = []
    for file in (path.with_suffix(".1.jsonl"), path):
        if file.exists():
            lines = file.read_text(encoding="utf-8").splitlines()
            entries += [entry for line in lines if (entry := json.loads(line))["time"] >= since]
    return entries


def of_deployer(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The flows' calls, without those that everybody may make."""
    return [e for e in entries if e["principal"] == DEPLOYER and e["action"] not in FREE]


def recorded(entries: Iterable[dict[str, Any]]) -> list[Recorded]:
    """Each different call once, by stage and action."""
    keys = _condition_keys()
    found: dict[str, Recorded] = {}
    for entry in entries:
        call = Recorded(
            step=step_of(entry["agent"]),
            action=entry["action"],
            resource=steady(entry["resource"]),
            context={k: steady(v) for k, v in sorted(entry["context"].items()) if k in keys},
        )
        found.setdefault(json.dumps(asdict(call)), call)
    return sorted(found.values(), key=lambda c: (c.step, c.action, c.resource, str(c.context)))


def step_of(agent: str) -> str:
    """The stage that a call was made for, as its user agent names it."""
    stages = re.findall(r"\bgateway-lab/([\w-]+)", agent)
    return stages[-1].replace("-", " ") if stages else BETWEEN


def steady(value: Any) -> Any:
    """``value`` without the texts that differ from run to run."""
    if not isinstance(value, str):
        return value
    for pattern, stands_for in _VARYING:
        value = pattern.sub(stands_for, value)
    return value


def write_calls(calls: Iterable[Recorded], path: Path) -> None:
    """One call a line, so that a difference can be read."""
    lines = [json.dumps(asdict(call), ensure_ascii=False) for call in calls]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def _condition_keys() -> set[str]:
    rights = read_rights()
    return {
        key.lower()
        for statements in {**rights["policies"], **rights["boundary"]}.values()
        for statement in statements
        for keys in statement.get("condition", {}).values()
        for key in keys
    }
