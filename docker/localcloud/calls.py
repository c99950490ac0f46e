"""What each call is authorised on: its resources, their tags, and the further rights that it needs.

The source is AWS's Service Authorization Reference; a lab makes the calls below. The decisions
about them are in ``authorization.py``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from ministack.core.responses import get_account_id, get_region
from ministack.services import ec2, iam

#: The resources of a call, where MiniStack has others: the end of each ARN, after the account.
#: ``{name}`` is a parameter, or the part after the last slash of one that is an ARN; ``{name*}``
#: each of a list; ``@name`` a parameter that is an ARN. A resource without a value is left out.
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
        """The parameter ``name``; dots in it lead into a structure. ``None`` if it is missing."""
        if name in self.values:
            return self.values[name]
        found: Any = self.values
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def checks(self, resource: str, context: dict[str, Any]) -> list[Check]:
        """Everything that must be allowed; MiniStack alone would ask for ``resource`` only."""
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
                    # The new rule is a resource of this call too.
                    yield Check(action, arn, _request_tags(context))
                yield Check("ec2:CreateTags", arn, creating)

    def _specified_tags(self) -> dict[str, Any]:
        """EC2's tags at creation, which MiniStack does not treat as tags of the request."""
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
    """A new resource has the request's tags, an existing one has its own.

    A call that tags has both.
    """
    if arn.endswith("/*"):
        return _request_tags(context)
    tags = ec2._tags.get(arn.rsplit("/", 1)[-1]) or []
    own = {f"aws:resourcetag/{tag['Key']}".lower(): tag["Value"] for tag in tags}
    return own | _request_tags(context)


def _request_tags(context: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in context.items() if k.startswith(("aws:requesttag/", "aws:tagkeys"))}
