"""Lets MiniStack authorise calls the way AWS documents it, and keeps a trail of its decisions.

Exists because MiniStack evaluates policies, but knows the resource of few calls, asks for none of
the rights that a call needs beside its own (to pass a role, to tag what it makes), and gives tasks
credentials of nobody. What a call is authorised on stands in AWS's Service Authorization
Reference; the calls below are those that a lab makes. It may not change what an allowed call does.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ministack.core import iam_actions, iam_evaluator
from ministack.core.iam_evaluator import AuthError, EvalResult
from ministack.core.responses import get_account_id, get_region
from ministack.services import ec2, ecs, iam, imds, sts

logger = logging.getLogger("gateway-lab")

#: The one user beside root. Set-up gives it its policies.
DEPLOYER = "gateway-lab-deployer"
DEPLOYER_KEY = {
    "AccessKeyId": "local",
    "SecretAccessKey": "local",  # pragma: allowlist secret: opens nothing but this
    "Status": "Active",
}
ACCOUNT = "000000000000"
CREDENTIAL_SECONDS = 3600
TRAIL_BYTES = 50_000_000

#: What a call is authorised on, where MiniStack has it otherwise: ARNs after account or region.
#: ``{name}`` is a parameter, or what follows the last slash of one that is an ARN; ``{name*}`` each
#: of a list; ``@name`` a parameter that is an ARN. A resource that is named nowhere is left out.
RESOURCES: dict[str, tuple[str, ...]] = {
    "ec2:AssociateRouteTable": ("route-table/{RouteTableId}", "subnet/{SubnetId}"),
    "ec2:AttachInternetGateway": ("internet-gateway/{InternetGatewayId}", "vpc/{VpcId}"),
    "ec2:AuthorizeSecurityGroupEgress": ("security-group/{GroupId}",),
    "ec2:AuthorizeSecurityGroupIngress": ("security-group/{GroupId}",),
    "ec2:CreateInternetGateway": ("internet-gateway/*",),
    "ec2:CreateRoute": ("route-table/{RouteTableId}",),
    "ec2:CreateRouteTable": ("route-table/*", "vpc/{VpcId}"),
    "ec2:CreateSecurityGroup": ("security-group/*", "vpc/{VpcId}"),
    "ec2:CreateSubnet": ("subnet/*", "vpc/{VpcId}"),
    "ec2:CreateVpc": ("vpc/*",),
    "ec2:DeleteInternetGateway": ("internet-gateway/{InternetGatewayId}",),
    "ec2:DeleteRoute": ("route-table/{RouteTableId}",),
    "ec2:DeleteRouteTable": ("route-table/{RouteTableId}",),
    "ec2:DeleteSecurityGroup": ("security-group/{GroupId}",),
    "ec2:DeleteSubnet": ("subnet/{SubnetId}",),
    "ec2:DeleteVpc": ("vpc/{VpcId}",),
    "ec2:DescribeVpcAttribute": ("vpc/{VpcId}",),
    "ec2:DetachInternetGateway": ("internet-gateway/{InternetGatewayId}", "vpc/{VpcId}"),
    "ec2:ModifySecurityGroupRules": (
        "security-group/{GroupId}",
        "security-group-rule/{SecurityGroupRule.1.SecurityGroupRuleId}",
    ),
    "ec2:ModifyVpcAttribute": ("vpc/{VpcId}",),
    "ec2:RevokeSecurityGroupEgress": ("security-group/{GroupId}",),
    "ec2:RevokeSecurityGroupIngress": ("security-group/{GroupId}",),
    "ecr:DescribeRepositories": ("repository/{repositoryNames*}",),
    "ecr:ListTagsForResource": ("@resourceArn",),
    "ecr:TagResource": ("@resourceArn",),
    "ecr:UntagResource": ("@resourceArn",),
    "ecs:CreateCluster": ("cluster/{clusterName}",),
    "ecs:CreateService": ("service/{cluster}/{serviceName}",),
    "ecs:DeleteService": ("service/{cluster}/{service}",),
    "ecs:DeleteTaskDefinitions": ("task-definition/{taskDefinitions*}",),
    "ecs:DeregisterTaskDefinition": (),
    "ecs:DescribeClusters": ("cluster/{clusters*}",),
    "ecs:DescribeServices": ("service/{cluster}/{services*}",),
    "ecs:DescribeTaskDefinition": (),
    "ecs:DescribeTasks": ("task/{cluster}/{tasks*}",),
    "ecs:ListServices": (),
    "ecs:ListTagsForResource": ("@resourceArn",),
    "ecs:ListTasks": (),
    "ecs:RegisterTaskDefinition": ("task-definition/{family}:*",),
    "ecs:StopTask": ("task/{cluster}/{task}",),
    "ecs:TagResource": ("@resourceArn",),
    "ecs:UntagResource": ("@resourceArn",),
    "ecs:UpdateService": ("service/{cluster}/{service}",),
    "iam:SimulatePrincipalPolicy": ("@PolicySourceArn",),
    "logs:GetLogEvents": ("log-group:{=logGroupName}:log-stream:{=logStreamName}",),
    "scheduler:CreateSchedule": ("schedule/{GroupName}/{Name}",),
    "scheduler:DeleteSchedule": ("schedule/{groupName}/{Name}",),
    "scheduler:GetSchedule": ("schedule/{groupName}/{Name}",),
    "scheduler:ListTagsForResource": ("@ResourceArn",),
    "scheduler:TagResource": ("@ResourceArn",),
    "scheduler:UntagResource": ("@ResourceArn",),
    "scheduler:UpdateSchedule": ("schedule/{GroupName}/{Name}",),
    "states:ListTagsForResource": ("@resourceArn",),
    "states:TagResource": ("@resourceArn",),
    "states:UntagResource": ("@resourceArn",),
}

#: The right to tag what a call makes; it is asked for only where the call names tags.
TAGGING = {
    "ecr:CreateRepository": "ecr:TagResource",
    "ecs:CreateCluster": "ecs:TagResource",
    "ecs:CreateService": "ecs:TagResource",
    "ecs:RegisterTaskDefinition": "ecs:TagResource",
    "iam:CreateRole": "iam:TagRole",
    "logs:CreateLogGroup": "logs:TagResource",
    "scheduler:CreateScheduleGroup": "scheduler:TagResource",
    "secretsmanager:CreateSecret": "secretsmanager:TagResource",  # pragma: allowlist secret: names
    "states:CreateStateMachine": "states:TagResource",
}

#: The roles that a call hands to a service, which needs iam:PassRole on each.
PASSING = {
    "ecs:RegisterTaskDefinition": ("ecs-tasks.amazonaws.com", ("executionRoleArn", "taskRoleArn")),
    "scheduler:CreateSchedule": ("scheduler.amazonaws.com", ("Target.RoleArn",)),
    "scheduler:UpdateSchedule": ("scheduler.amazonaws.com", ("Target.RoleArn",)),
    "states:CreateStateMachine": ("states.amazonaws.com", ("roleArn",)),
    "states:UpdateStateMachine": ("states.amazonaws.com", ("roleArn",)),
}

#: Operations that AWS authorises as others.
RENAMED = {
    "bedrock:Converse": "bedrock:InvokeModel",
    "bedrock:ConverseStream": "bedrock:InvokeModelWithResponseStream",
}

_EC2_TYPES = {
    "igw": "internet-gateway",
    "rtb": "route-table",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "subnet": "subnet",
    "vpc": "vpc",
}
_GEOGRAPHIES = ("us", "us-gov", "eu", "apac", "jp", "au", "ca", "global")


@dataclass(frozen=True)
class Check:
    """One question to the policies: may the caller do ``action`` on ``resource``?"""

    action: str
    resource: str
    context: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A request, as far as its authorisation depends on it."""

    action: str | None
    path: str
    agent: str
    values: dict[str, Any]
    host: str = ""

    def value(self, name: str) -> Any:
        """The parameter ``name``, where dots lead into a structure; ``None`` if it is missing."""
        if name in self.values:
            return self.values[name]
        found: Any = self.values
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def checks(self, resource: str, context: dict[str, Any]) -> list[Check]:
        """Everything that must be allowed, where MiniStack would ask for ``resource`` only."""
        action = self.action or ""
        service = action.partition(":")[0]
        context = {key.lower(): value for key, value in context.items()}
        resources = list(self._resources(action, resource))
        if service == "ec2":
            context |= self._specified_tags()
            asked = [Check(action, arn, _ec2_context(arn, context)) for arn in resources]
            asked += self._ec2_tagging(action, context)
        else:
            context |= self._context(service)
            asked = [Check(action, arn, context) for arn in resources]
            if action in TAGGING and context.get("aws:tagkeys"):
                creating = {f"{service}:createaction": action.partition(":")[2]}
                asked += [Check(TAGGING[action], arn, context | creating) for arn in resources]
        to, fields = PASSING.get(action, ("", ()))
        passed = {"iam:passedtoservice": to}
        asked += [
            Check("iam:PassRole", arn, passed) for name in fields if (arn := self.value(name))
        ]
        if service == "bedrock":
            asked += self._behind_profile(action, asked)
        return asked

    def _resources(self, action: str, resource: str) -> Iterator[str]:
        if action in {"ec2:CreateTags", "ec2:DeleteTags"}:
            ids = [v for k, v in sorted(self.values.items()) if k.startswith("ResourceId.")]
            yield from (_ec2_arn(one) for one in ids)
        elif action == "ec2:DisassociateRouteTable":
            yield from self._of_association()
        elif action in {"bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"}:
            yield from self._invoked()
        elif action.startswith("ec2:Describe") and action not in RESOURCES:
            yield "*"
        elif action not in RESOURCES:
            yield resource
        else:
            found = [arn for template in RESOURCES[action] for arn in self._fill(action, template)]
            yield from found or ["*"]

    def _fill(self, action: str, template: str) -> Iterator[str]:
        if template.startswith("@"):
            named = self.value(template[1:])
            if named:
                yield str(named)
            return
        lists = [""]
        for text, mode, name, many in re.findall(r"([^{]+)|\{(=?)([\w.]+)(\*?)\}", template):
            values = [text] if text else self._named(name, whole=bool(mode), many=bool(many))
            lists = [head + tail for head in lists for tail in values]
        region = "" if action.startswith("iam:") else get_region()
        service = action.partition(":")[0]
        yield from (f"arn:aws:{service}:{region}:{get_account_id()}:{rest}" for rest in lists)

    def _named(self, name: str, *, whole: bool, many: bool) -> list[str]:
        found = self.value(name)
        values = found if many and isinstance(found, list) else [found] if found else []
        return [str(v) if whole else str(v).rsplit("/", 1)[-1] for v in values]

    def _of_association(self) -> Iterator[str]:
        wanted = self.value("AssociationId")
        for table in ec2._route_tables.values():
            for association in table.get("Associations", []):
                if association.get("RouteTableAssociationId") == wanted:
                    yield _ec2_arn(str(table["RouteTableId"]))
                    if association.get("SubnetId"):
                        yield _ec2_arn(str(association["SubnetId"]))

    def _context(self, service: str) -> dict[str, Any]:
        if service == "ecs" and self.value("cluster"):
            cluster = str(self.value("cluster")).rsplit("/", 1)[-1]
            arn = f"arn:aws:ecs:{get_region()}:{get_account_id()}:cluster/{cluster}"
            return {"ecs:cluster": arn}
        if service == "iam" and self.value("RoleName"):
            known = iam._roles.get(self.value("RoleName")) or {}
            boundary = self.value("PermissionsBoundary") or known.get("PermissionsBoundary")
            return {"iam:permissionsboundary": boundary} if boundary else {}
        return {}

    def _ec2_tagging(self, action: str, context: dict[str, Any]) -> Iterator[Check]:
        creating = {**_request_tags(context), "ec2:createaction": action.partition(":")[2]}
        for name, kind in self.values.items():
            if re.fullmatch(r"TagSpecification\.\d+\.ResourceType", name):
                arn = f"arn:aws:ec2:{get_region()}:{get_account_id()}:{kind}/*"
                if action.startswith("ec2:Authorize"):
                    # The rule that is made is a resource of this call too.
                    yield Check(action, arn, _request_tags(context))
                yield Check("ec2:CreateTags", arn, creating)

    def _specified_tags(self) -> dict[str, Any]:
        """EC2's tags at creation, which MiniStack does not take for tags of the request."""
        keys = [k for k in self.values if re.fullmatch(r"TagSpecification\.\d+\.Tag\.\d+\.Key", k)]
        if not keys:
            return {}
        found = {
            f"aws:requesttag/{self.values[k]}".lower(): self.values.get(f"{k[:-4]}.Value", "")
            for k in keys
        }
        return {**found, "aws:tagkeys": sorted({self.values[k] for k in keys})}

    def _invoked(self) -> Iterator[str]:
        model = unquote(self.path.split("/model/", 1)[-1].rsplit("/", 1)[0])
        if model.startswith("arn:"):
            yield model
        elif model.partition(".")[0] in _GEOGRAPHIES:
            place = f"{get_region()}:{get_account_id()}"
            yield f"arn:aws:bedrock:{place}:inference-profile/{model}"
        else:
            yield f"arn:aws:bedrock:{get_region()}::foundation-model/{model}"

    def _behind_profile(self, action: str, asked: list[Check]) -> list[Check]:
        """The model that a profile leads to, here always in the region that was called."""
        return [
            Check(
                action,
                f"arn:aws:bedrock:{get_region()}::foundation-model/"
                + one.resource.rsplit("/", 1)[-1].partition(".")[2],
                one.context | {"bedrock:inferenceprofilearn": one.resource},
            )
            for one in asked
            if ":inference-profile/" in one.resource and one.action.startswith("bedrock:Invoke")
        ]


def _ec2_arn(identifier: str) -> str:
    kind = _EC2_TYPES.get(identifier.partition("-")[0], "unknown")
    return f"arn:aws:ec2:{get_region()}:{get_account_id()}:{kind}/{identifier}"


def _ec2_context(arn: str, context: dict[str, Any]) -> dict[str, Any]:
    """A thing that is made has the request's tags, one that is there has its own.

    Tagging knows both.
    """
    if arn.endswith("/*"):
        return _request_tags(context)
    tags = ec2._tags.get(arn.rsplit("/", 1)[-1]) or []
    own = {f"aws:resourcetag/{tag['Key']}".lower(): tag["Value"] for tag in tags}
    return own | _request_tags(context)


def _request_tags(context: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in context.items() if k.startswith(("aws:requesttag/", "aws:tagkeys"))}


class Trail:
    """Who asked for what, and what was decided: a line of JSON for each question."""

    def __init__(self, path: Path) -> None:
        """``path`` is written to; what grows too long goes to a second file beside it."""
        self._path = path
        self._lock = threading.Lock()

    def write(self, call: Call | None, check: Check, decision: str) -> None:
        """Append one decision. Holds no value of a call but names, tags and ARNs."""
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
    """The request that is being answered; ``None`` outside of one, and where none is authorised."""
    return _call.get()


class Authorization:
    """MiniStack's own authorisation, asked the questions that AWS would ask."""

    def __init__(self, trail: Trail) -> None:
        """``trail`` hears of each decision."""
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
            # S3 asks for more than one action of its own accord.
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
    """The call's parameters by name, wherever they stand."""
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
        """New credentials of the role of the task that asks; nobody's where it has none."""
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
    """The deployer's key is what it always was: MiniStack would make one up."""
    iam._access_keys._data.setdefault(
        (ACCOUNT, DEPLOYER_KEY["AccessKeyId"]),
        {**DEPLOYER_KEY, "UserName": DEPLOYER, "CreateDate": "2026-01-01T00:00:00Z"},
    )
