"""IAM's evaluation, as far as our policies use it: one statement allows a call, or none does.

It knows no deny, no negation and no policy variable; a policy with one fails the test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_OPERATORS = {"StringEquals", "StringLike", "ArnLike"}


def allows(
    policies: Mapping[str, Mapping[str, Any]],
    action: str,
    resource: str,
    context: Mapping[str, Any],
) -> bool:
    """Whether any statement of any policy allows the call."""
    return any(
        _statement_allows(statement, action, resource, context)
        for policy in policies.values()
        for statement in policy["Statement"]
    )


def _statement_allows(
    statement: Mapping[str, Any], action: str, resource: str, context: Mapping[str, Any]
) -> bool:
    assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
    assert statement["Effect"] == "Allow"
    known = {key.lower(): value for key, value in context.items()}
    return (
        action in statement["Action"]
        and any(_like(resource, pattern) for pattern in _list(statement["Resource"]))
        and all(
            _met(operator, known.get(key.lower()), _list(wanted))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _met(operator: str, value: Any, wanted: list[str]) -> bool:
    assert operator in _OPERATORS
    if value is None:
        return False
    if operator == "StringEquals":
        return value in wanted
    return any(_like(str(value), pattern) for pattern in wanted)


def _like(value: str, pattern: str) -> bool:
    return (
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), value) is not None
    )


def _list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
