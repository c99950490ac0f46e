"""Lets MiniStack authorise calls the way AWS documents it, and keeps a trail of its decisions.

Exists because MiniStack evaluates policies, but knows the resource of few calls, asks for none of
the further rights that a call needs (to pass a role, to tag what it makes), and gives tasks
credentials of nobody. ``calls.py`` has the resources of each call. It may not change what an
allowed call does.
"""

import json
import logging
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from calls import RENAMED, Call, Check
from ministack.core import iam_actions, iam_evaluator
from ministack.core.iam_evaluator import AuthError, EvalResult
from ministack.services import ecs, iam, imds, sts

logger = logging.getLogger("gateway-lab")

#: The one user, apart from root. Set-up gives it its policies.
DEPLOYER = "gateway-lab-deployer"
DEPLOYER_KEY = {
    "AccessKeyId": "local",
    "SecretAccessKey": "local",  # pragma: allowlist secret: opens nothing but this
    "Status": "Active",
}
ACCOUNT = "000000000000"
CREDENTIAL_SECONDS = 3600
TRAIL_BYTES = 50_000_000


class Trail:
    """A log of questions and decisions, with the caller: a line of JSON for each."""

    def __init__(self, path: Path) -> None:
        """The trail is written to ``path``; a file that grows too long is renamed."""
        self._path = path
        self._lock = threading.Lock()

    def write(self, call: Call | None, check: Check, decision: str) -> None:
        """Append one decision. Of a call's values it holds names, tags and ARNs only."""
        line = json.dumps(
            {
                "time": round(time.time(), 3),
                "principal": iam_evaluator.caller_arn(),
                "agent": call.agent if call else "",
                "action": check.action,
                "resource": check.resource,
                "context": {k: v for k, v in check.context.items() if v is not None},
                "decision": decision,
            }
        )
        with self._lock:
            if self._path.exists() and self._path.stat().st_size > TRAIL_BYTES:
                self._path.replace(self._path.with_suffix(".1.jsonl"))
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


_call: ContextVar[Call | None] = ContextVar("gateway_lab_call", default=None)
_refused: ContextVar[Check | None] = ContextVar("gateway_lab_refused", default=None)


def current_call() -> Call | None:
    """The request that is being answered; ``None`` outside a request that is authorised."""
    return _call.get()


class Authorization:
    """MiniStack's own authorisation, with the questions that AWS would ask."""

    def __init__(self, trail: Trail) -> None:
        """Each decision is written to ``trail``."""
        self._trail = trail
        self._extract_action = iam_actions.extract_iam_action
        self._enforce = iam_evaluator.enforce
        self._denied = iam_actions.access_denied_response

    def install(self) -> None:
        """From now on requests are authorised here."""
        iam_actions.extract_iam_action = self.extract_action
        iam_actions.access_denied_response = self.denied
        iam_evaluator.enforce = self.enforce

    def extract_action(  # noqa: D102
        self, service: str, method: str, path: str, headers: dict, body: bytes, params: dict
    ) -> str | None:
        found = self._extract_action(service, method, path, headers, body, params)
        action = RENAMED.get(found, found)
        _refused.set(None)
        values = _values(service, path, body, params)
        agent, host = headers.get("user-agent", ""), headers.get("host", "")
        _call.set(Call(action, path, agent, values, host))
        return action

    def enforce(  # noqa: D102
        self,
        access_key: str,
        action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: dict | None = None,
    ) -> EvalResult | AuthError | None:
        call = _call.get()
        if call is not None and call.action == action:
            asked = call.checks(resource_arn, service_context or {})
        else:
            # S3 asks for further actions by itself.
            asked = [Check(action, resource_arn, service_context or {})]
        for check in asked:
            denied = self._enforce(
                access_key, check.action, service, region, check.resource, check.context
            )
            self._trail.write(call, check, "denied" if denied else "allowed")
            if denied:
                _refused.set(check)
                return denied
        return None

    def denied(self, service: str, action: str, principal: str, *args: Any, **kwargs: Any) -> tuple:
        """MiniStack's answer, with the action and the resource that AWS would name."""
        check = _refused.get()
        if check is not None and not kwargs.get("error_code") and not kwargs.get("message"):
            words = iam_actions.identity_denial_message(
                check.action, principal, check.resource, kwargs.get("explicit_deny", False)
            )
            if service == "ec2":
                words = f"You are not authorized to perform this operation. {words}"
            kwargs["message"] = words
            action = check.action
        return self._denied(service, action, principal, *args, **kwargs)


def _values(service: str, path: str, body: bytes, params: dict) -> dict[str, Any]:
    """The call's parameters by name, from wherever the call has them."""
    values: dict[str, Any] = {k: v[0] if isinstance(v, list) else v for k, v in params.items()}
    if body[:1] == b"{":
        try:
            values |= json.loads(body)
        except ValueError:
            return values
    if service == "scheduler":
        kind, _, name = path.strip("/").partition("/")
        values["ResourceArn" if kind == "tags" else "Name"] = unquote(name)
        values.setdefault("GroupName", "default")
        values.setdefault("groupName", values["GroupName"])
    return values


class TaskRoles:
    """Gives each task the credentials of its own role, as Fargate does."""

    def __init__(self) -> None:
        self._roles: dict[str, tuple[str, str]] = {}
        self._register = ecs._register_metadata
        self._document = imds._ecs_task_credentials_doc

    def install(self) -> None:
        """From now on tasks that start have roles."""
        ecs._register_metadata = self.register
        imds._ecs_task_credentials_doc = self.document

    def register(  # noqa: D102
        self,
        task_arn: str,
        cluster: str,
        definition: dict,
        container: dict,
        launch_type: str,
        env: dict,
        *rest: Any,
    ) -> str:
        token = self._register(task_arn, cluster, definition, container, launch_type, env, *rest)
        role = definition.get("taskRoleArn")
        if role:
            identifier = env["AWS_CONTAINER_CREDENTIALS_FULL_URI"].rsplit("/", 1)[-1]
            self._roles[identifier] = (role, task_arn.rsplit("/", 1)[-1])
        return token

    def document(self) -> dict:
        """New credentials of the calling task's role; nobody's where it has none."""
        document = self._document()
        call = _call.get()
        known = self._roles.get(call.path.rsplit("/", 1)[-1]) if call else None
        if known is None:
            return document
        role, task = known
        account, name = role.split(":")[4], role.rsplit("/", 1)[-1]
        sts.register_session(
            document["AccessKeyId"],
            {
                "Arn": f"arn:aws:sts::{account}:assumed-role/{name}/{task}",
                "UserId": f"{name}:{task}",
                "SecretAccessKey": document["SecretAccessKey"],
                "SessionToken": document["Token"],
                "Expiration": time.time() + CREDENTIAL_SECONDS,
                "AccountId": account,
                "PrincipalType": "AssumedRole",
            },
        )
        return {**document, "RoleArn": role}


def ensure_deployer_key() -> None:
    """Keep the deployer's key the same: MiniStack would make a random one."""
    iam._access_keys._data.setdefault(
        (ACCOUNT, DEPLOYER_KEY["AccessKeyId"]),
        {**DEPLOYER_KEY, "UserName": DEPLOYER, "CreateDate": "2026-01-01T00:00:00Z"},
    )
