"""Completes MiniStack's answers that a lab's posture depends on, to what AWS would answer.

Exists because MiniStack simulates a role without its boundary and without a call's context,
returns an address of AWS's own for an image's layers, and starts a service's tasks without the
service's tags. It may not decide anything: MiniStack evaluates policies, as when it enforces them.
"""

from collections.abc import Callable, Iterator
from typing import Any
from xml.sax.saxutils import escape

from authorization import current_call
from ministack.core import iam_evaluator
from ministack.core.iam_evaluator import EvalContext
from ministack.core.responses import get_region, json_response
from ministack.services import ecr, ecs, iam

_DECISIONS = {"Allow": "allowed", "Deny": "explicitDeny"}


def complete() -> None:
    """From now on these calls are answered as AWS answers them."""
    iam._build_simulate_results_real = simulate
    ecr._get_download_url_for_layer = layer_url
    ecs._run_task = with_service_tags(ecs._run_task)


def simulate(
    actions: list[str], resource: str, principal: str, account: str, policies: list[Any]
) -> str:
    """IAM's results for each action, by the role's policies, its boundary and the given context."""
    role = principal.rsplit("/", 1)[-1] if ":role/" in principal else ""
    limits = iam_evaluator._permissions_boundary(iam._roles, role, account) if role else []
    given = dict(_context())
    members = ""
    for action in actions:
        asked = EvalContext(
            principal_arn=principal,
            principal_type="AssumedRole" if role else "User",
            principal_account=account,
            action=action,
            resource_arn=resource,
            region=get_region(),
            service_context=given,
        )
        decision = iam_evaluator.evaluate(asked, policies, *limits).decision
        members += (
            f"<member><EvalActionName>{escape(action)}</EvalActionName>"
            f"<EvalResourceName>{escape(resource)}</EvalResourceName>"
            f"<EvalDecision>{_DECISIONS.get(decision, 'implicitDeny')}</EvalDecision>"
            "<MatchedStatements></MatchedStatements><MissingContextValues></MissingContextValues>"
            "</member>"
        )
    return members


def _context() -> Iterator[tuple[str, str]]:
    """The first value of each key that the call gives, under the evaluator's names."""
    call = current_call()
    for name, key in call.values.items() if call else ():
        if name.startswith("ContextEntries.member.") and name.endswith(".ContextKeyName"):
            entry = name.removesuffix(".ContextKeyName")
            value = call.value(f"{entry}.ContextKeyValues.member.1") if call else None
            if value is not None:
                yield str(key).lower(), str(value)


def layer_url(data: dict[str, Any]) -> tuple:
    """Where the layer is, at the address that the caller uses for this cloud."""
    call = current_call()
    repository, digest = data.get("repositoryName", ""), data.get("layerDigest", "")
    if repository not in ecr._repositories:
        return _MISSING(data)
    host = (call.host if call else "") or "127.0.0.1:4566"
    url = f"http://{host}/v2/{repository}/blobs/{digest}"
    return json_response({"downloadUrl": url, "layerDigest": digest})


_MISSING = ecr._get_download_url_for_layer


def with_service_tags(run_task: Callable[[dict[str, Any]], Any]) -> Callable[..., Any]:
    """``run_task``, which gives a service's tasks the tags that the service passes on."""

    def run(data: dict[str, Any]) -> Any:
        kind, _, name = str(data.get("group", "")).partition(":")
        cluster = ecs._resolve_cluster_name(data.get("cluster", "default"))
        service = ecs._services.get(f"{cluster}/{name}") if kind == "service" else None
        if service and service.get("propagateTags") == "SERVICE" and not data.get("tags"):
            data = {**data, "tags": list(ecs._tags.get(service["serviceArn"], []))}
        return run_task(data)

    return run
