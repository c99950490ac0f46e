"""Reads from a refusal which action, on which resource, the caller would need."""

from __future__ import annotations

import re
from dataclasses import dataclass

POLICY = "docs/deployer-policy.json"

_NAMED = re.compile(
    r"not authorized to perform:?\s+(?P<action>[a-z0-9-]+:\w+)"
    r"(?:\s+on\s+(?:the\s+)?resource:?\s+[\"']?(?P<resource>[^\s\"',]+))?",
    re.IGNORECASE,
)
#: How Terraform's provider reports a refusal that names no action.
_OPERATION = re.compile(
    r"operation error (?P<service>[\w ]+): (?P<operation>\w+),.*?StatusCode: 403"
)
_REFUSED = re.compile(r"AccessDenied|UnauthorizedOperation|api error Forbidden|AuthorizationError")
#: Operations that S3 authorises as another action. It refuses HEAD without a message: no body.
_ACTIONS = {
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "ListObjectVersions": "s3:ListBucketVersions",
}


@dataclass(frozen=True)
class Denial:
    """An action that was refused, and on which resource as far as the refusal says."""

    action: str
    resource: str | None

    def __str__(self) -> str:
        return f"{self.action} on {self.resource}" if self.resource else self.action

    @property
    def hint(self) -> str:
        """What to do about it."""
        return (
            f"Allow {self.action} to the identity that runs the lab: {POLICY} has all that a lab "
            "needs. A boundary or an organisation's policy can refuse it too: read the cloud's "
            "message."
        )


def find_denial(said: str, operation: str = "") -> Denial | None:
    """The refusal in ``said``, a message of AWS or Terraform; ``None`` if it is another error.

    ``operation`` is what was called, for a refusal that does not name its action.
    """
    named = _NAMED.search(said)
    if named:
        resource = (named["resource"] or "").rstrip(".")
        return Denial(named["action"], None if resource in {"", "*"} else resource)
    if not operation and not _REFUSED.search(said):
        return None
    called = _OPERATION.search(said)
    if called:
        operation = called["operation"]
        service = called["service"].replace(" ", "").lower()
        return Denial(_ACTIONS.get(operation, f"{service}:{operation}"), None)
    return Denial(_ACTIONS.get(operation, operation or "the action"), None)
