"""What a deployer may do: policies made from what the flows call, filled in for an account.

``config/deployer-rights.yaml`` says which resources an action is meant for,
``config/deployer-calls.json`` which actions the flows call. ``docs/deployer-policy.json`` is made
from both, so that it can allow no action that no flow calls. Works on files only, not on a cloud.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab.errors import InvalidInputError, PermanentError
from lab.settings import ROOT

RIGHTS = ROOT / "config" / "deployer-rights.yaml"
CALLS = ROOT / "config" / "deployer-calls.json"
POLICY = ROOT / "docs" / "deployer-policy.json"
TABLE = ROOT / "docs" / "deployer-policy.md"
BOUNDARY = "gateway-lab-boundary"
#: How many characters a managed policy may have, not counting white space.
QUOTA = 6144
#: AWS allows these to everyone, whatever a policy says.
FREE = frozenset({"sts:GetCallerIdentity"})

Policies = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Recorded:
    """One request that the local cloud's policies decided, without what varies."""

    step: str
    action: str
    resource: str
    context: Mapping[str, Any] = field(default_factory=dict, hash=False)


def read_rights(path: Path = RIGHTS) -> dict[str, Any]:
    """The table of rights."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def read_calls(path: Path = CALLS) -> list[Recorded]:
    """The recorded requests."""
    return [Recorded(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def make_policies(rights: Mapping[str, Any], called: Iterable[str]) -> Policies:
    """The documents by name, with placeholders.

    Raises InvalidInputError if table and calls do not fit each other, or a document is longer than
    AWS allows.
    """
    granted = {a for s in _statements(rights["policies"]) for a in s["actions"]}
    unevaluated = set(rights["unevaluated"])
    calls = set(called) - FREE
    wrong = {
        "called, but allowed nowhere": calls - granted,
        "allowed, but neither called nor listed under unevaluated": granted - calls - unevaluated,
        "listed under unevaluated, but evaluated": unevaluated & calls,
        "listed under unevaluated, but allowed nowhere": unevaluated - granted,
    }
    faults = [f"{what}: {', '.join(sorted(actions))}" for what, actions in wrong.items() if actions]
    if faults:
        raise InvalidInputError("; ".join(faults), f"Correct {RIGHTS.relative_to(ROOT)}.")
    made = {
        name: {"Version": "2012-10-17", "Statement": [_statement(s) for s in statements]}
        for name, statements in {**rights["policies"], **rights["boundary"]}.items()
    }
    # The longest account, region and partition there are.
    for name, document in fill(made, "0" * 12, "ap-southeast-1", "aws-us-gov").items():
        if length(document) > QUOTA:
            raise InvalidInputError(
                f"{name} has {length(document)} characters; a managed policy has at most {QUOTA}",
                "Move statements to another policy.",
            )
    return made


def fill(policies: Policies, account: str, region: str, partition: str | None = None) -> Policies:
    """The documents for an account and region; InvalidInputError if one of them is not valid."""
    if not re.fullmatch(r"\d{12}", account):
        raise InvalidInputError(f"account {account!r} is not allowed: 12 digits", "Correct it.")
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region):
        raise InvalidInputError(
            f"region {region!r} is not an AWS region, such as 'us-east-1'", "Correct it."
        )
    text = json.dumps(policies)
    for name, value in {
        "PARTITION": partition or partition_of(region),
        "ACCOUNT": account,
        "REGION": region,
    }.items():
        text = re.sub(rf"\b{name}\b", value, text)
    filled: Policies = json.loads(text)
    return filled


def partition_of(region: str) -> str:
    """The AWS partition of ``region``."""
    return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(
        "us-gov" if region.startswith("us-gov-") else region.partition("-")[0], "aws"
    )


def read_policies() -> Policies:
    """The documents as the project ships them, with placeholders."""
    found: Policies = json.loads(POLICY.read_text(encoding="utf-8"))
    return found


def write_policies() -> None:
    """Write the documents and their table."""
    rights, calls = read_rights(), read_calls()
    made = make_policies(rights, [call.action for call in calls])
    POLICY.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    TABLE.write_text(describe(rights, calls), encoding="utf-8")


def write_filled(account: str, region: str, folder: Path) -> list[str]:
    """Write one file per policy, and return the commands that make them in the account."""
    folder.mkdir(parents=True, exist_ok=True)
    commands = []
    for name, document in fill(read_policies(), account, region).items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        commands.append(
            f"aws iam create-policy --policy-name {name} --policy-document file://{path}"
        )
    return commands


def length(document: Mapping[str, Any]) -> int:
    """How many of a managed policy's characters ``document`` takes."""
    return len(re.sub(r"\s", "", json.dumps(document)))


def describe(rights: Mapping[str, Any], calls: Iterable[Recorded]) -> str:
    """The table of actions: why each is needed, and how that is known."""
    steps: dict[str, list[str]] = {}
    for call in calls:
        known = steps.setdefault(call.action, [])
        if call.step not in known:
            known.append(call.step)
    lines = [
        "# What a deployer may do",
        "",
        "Written by `make policy`; do not edit. [run.md](run.md#rights) says how to use it. A stage"
        " has the name that Prefect shows.",
        "",
    ]
    for name, statements in rights["policies"].items():
        lines += [f"## {name}", "", "| Action | Statement | Needed by |", "|---|---|---|"]
        for statement in statements:
            for action in statement["actions"]:
                beyond = rights["unevaluated"].get(action)
                needed = ", ".join(steps.get(action, []))
                if beyond:
                    needed = f"{beyond['why']} ([source]({beyond['source']}))"
                lines.append(f"| `{action}` | {statement['sid']} | {needed} |")
        lines.append("")
    lines += [
        "## Allowed on every resource",
        "",
        "AWS knows no resource for the actions of the statements `Region`, `ListRoles` and"
        " `ServiceLists` ([Service Authorization Reference](https://docs.aws.amazon.com/"
        "service-authorization/latest/reference/reference_policies_actions-resources-"
        "contextkeys.html)), except for:",
        "",
        *(
            f"- `{action}`: {found['why']} ([source]({found['source']}))."
            for action, found in rights["whole"].items()
        ),
        "",
    ]
    return "\n".join(lines)


def _statements(policies: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for statements in policies.values():
        yield from statements


def _statement(row: Mapping[str, Any]) -> dict[str, Any]:
    everything = row.get("everything", False)
    if everything == bool(row.get("resources")):
        raise PermanentError(f"statement {row['sid']} must have resources or everything, not both")
    made: dict[str, Any] = {
        "Sid": row["sid"],
        "Effect": "Allow",
        "Action": row["actions"],
        "Resource": "*" if everything else [_arn(one) for one in row["resources"]],
    }
    if "condition" in row:
        made["Condition"] = {
            operator: {key: _values(key, value) for key, value in keys.items()}
            for operator, keys in row["condition"].items()
        }
    return made


def _values(key: str, value: Any) -> Any:
    return _arn(value) if key in {"ecs:cluster", "iam:PermissionsBoundary"} else value


def _arn(rest: str) -> str:
    return f"arn:PARTITION:{rest}"
