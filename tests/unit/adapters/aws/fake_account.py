"""An AWS account as the sweep sees it: many resources, on several pages, some of other owners."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NamedTuple

from botocore.validate import validate_parameters

from adapters.aws.session import Cloud
from tests.unit.adapters.aws.stubs import Stubs

AT = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
ARN = "arn:aws:service:us-east-1:123456789012:"
NETWORK = {
    "SecurityGroups": ("GroupId", "sg-"),
    "Subnets": ("SubnetId", "subnet-"),
    "InternetGateways": ("InternetGatewayId", "igw-"),
    "RouteTables": ("RouteTableId", "rtb-"),
    "Vpcs": ("VpcId", "vpc-"),
}
SERVICES = ("scheduler", "stepfunctions", "ecs", "secretsmanager", "logs", "ec2", "iam")
ROLES = ("execution", "task", "scheduler", "stop")
#: AWS allows a role only as many tags and inline policies as fit on one page.
ONE_PAGE = {"ListRoleTags", "ListRolePolicies"}


class Refusal(NamedTuple):
    """How a call is refused, if it is about the resource called ``of``."""

    code: str = "DependencyViolation"
    message: str = "it is in use"
    of: str = ""


class Account:
    """An account's resources, one a page in every call that has pages in botocore."""

    def __init__(self) -> None:
        self.labs: list[tuple[str, bool]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.refused: dict[str, Refusal] = {}
        self.cloud: Cloud = Stubs("us-east-1").cloud
        for service in SERVICES:
            self._attach(service)

    def empty(self) -> Account:
        """Remove all resources and recorded calls; keep the clients, which take long to make."""
        self.labs, self.calls, self.refused = [], [], {}
        return self

    def has(self, lab: str, *, ours: bool = True) -> None:
        """Add everything of a lab; if not ``ours``, without the project's tags."""
        self.labs.append((lab, ours))

    def _attach(self, service: str) -> None:
        client = self.cloud.client(service)
        # Services are read in parallel, some of them by one client.
        asked = threading.local()

        def remember(params: dict[str, Any], **_: Any) -> None:
            asked.params = dict(params)

        def answer(model: Any, **_: Any) -> tuple[Any, dict[str, Any]]:
            return self._answer(client, model, asked.params)

        client.meta.events.register_first("before-parameter-build.*.*", remember)
        client.meta.events.register_first("before-call.*.*", answer)

    def _answer(self, client: Any, model: Any, asked: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self.calls.append((model.name, asked))
        refusal = self.refused.get(model.name)
        if refusal and refusal.of in str(asked):
            error = {"Error": {"Code": refusal.code, "Message": refusal.message}}
            return SimpleNamespace(status_code=400), error
        make: Callable[[dict[str, Any]], dict[str, Any]] = getattr(self, model.name, lambda _: {})
        whole = make(asked)
        method = next(
            m for m, name in client.meta.method_to_api_mapping.items() if name == model.name
        )
        if client.can_paginate(method) and model.name not in ONE_PAGE:
            whole = _page(client.get_paginator(method)._pagination_cfg, whole, asked)
        if model.output_shape:
            validate_parameters(whole, model.output_shape)
        return SimpleNamespace(status_code=200), whole

    def _names(self, prefix: str = "") -> list[tuple[str, str, bool]]:
        """Names of labs' resources, and at the end one that belongs to no lab."""
        known = [(lab, f"gateway-lab-{lab}", ours) for lab, ours in self.labs]
        known.append(("", "somebody-elses", False))
        return [item for item in known if item[1].startswith(prefix)]

    def _tags(self, name: str, key: str, value: str) -> list[dict[str, str]]:
        """The tags of the resource ``name`` (or with it in its ARN), in a service's spelling."""
        for lab, resource, ours in self._names():
            stem = name.rsplit("/", 1)[-1].rsplit(":", 1)[-1]
            if ours and stem in {resource, lab, *(f"{resource}-{r}" for r in ROLES)}:
                return [
                    {key: "lab:project", value: "gateway-lab"},
                    {key: "lab:id", value: lab},
                ]
        return [{key: "lab:project", value: "another"}, {key: "lab:id", value: "x"}]

    # --- what AWS answers ----------------------------------------------------------------------

    def ListScheduleGroups(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        names = [n for _, n, _ in self._names(asked["NamePrefix"])]
        groups = [{"Name": n, "State": "ACTIVE", "Arn": f"{ARN}group/{n}"} for n in names]
        return {"ScheduleGroups": groups}

    def ListTagsForResource(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        if "ResourceArn" in asked:
            return {"Tags": self._tags(asked["ResourceArn"], "Key", "Value")}
        return {"tags": self._tags(asked["resourceArn"], "key", "value")}

    def ListStateMachines(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        found = [
            {
                "name": f"{n}-stop",
                "stateMachineArn": f"{ARN}stateMachine:{n}-stop",
                "type": "STANDARD",
                "creationDate": AT,
            }
            for _, n, _ in self._names()
        ]
        return {"stateMachines": found}

    def ListClusters(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"clusterArns": [f"{ARN}cluster/{n}" for _, n, _ in self._names()]}

    def DescribeClusters(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        wanted = [c.rsplit("/", 1)[-1] for c in asked["clusters"]]
        tagged = "TAGS" in asked.get("include", [])
        found = [
            {
                "clusterName": n,
                "status": "ACTIVE",
                "tags": self._tags(n, "key", "value") if tagged else [],
            }
            for _, n, _ in self._names()
            if n in wanted
        ]
        # A cluster that was deleted is listed for a while.
        gone = [{**cluster, "status": "INACTIVE"} for cluster in found]
        return {"clusters": [*found, *gone]}

    def ListServices(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        cluster = asked["cluster"]
        return {"serviceArns": [f"{ARN}service/{cluster}/{cluster}"]}

    def ListTasks(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"taskArns": [f"{ARN}task/{asked['cluster']}/{n}" for n in (1, 2)]}

    def ListTaskDefinitionFamilies(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"families": [n for _, n, _ in self._names(asked["familyPrefix"])]}

    def ListTaskDefinitions(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        family = asked["familyPrefix"]
        revisions = (1, 2) if asked["status"] == "ACTIVE" else ()
        return {"taskDefinitionArns": [f"{ARN}task-definition/{family}:{n}" for n in revisions]}

    def DescribeTaskDefinition(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        family = asked["taskDefinition"]
        return {"taskDefinition": {"family": family}, "tags": self._tags(family, "key", "value")}

    def ListSecrets(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        (wanted,) = asked["Filters"]
        assert wanted["Key"] == "name"
        found = [
            {"Name": f"{n}/{what}", "Tags": self._tags(n, "Key", "Value")}
            for _, n, _ in self._names()
            for what in ("gateway-key", "gateway-tls")
            if f"{n}/{what}".startswith(wanted["Values"][0])
        ]
        return {"SecretList": found}

    def DescribeLogGroups(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        groups = [f"/gateway-lab/{lab}" for lab, _ in self.labs]
        prefix = asked["logGroupNamePrefix"]
        return {"logGroups": [{"logGroupName": g} for g in groups if g.startswith(prefix)]}

    def ListTagsLogGroup(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        tags = self._tags(asked["logGroupName"], "key", "value")
        return {"tags": {tag["key"]: tag["value"] for tag in tags}}

    def ListRoles(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {
            "Roles": [
                {
                    "RoleName": f"{n}-{kind}",
                    "Path": "/",
                    "RoleId": "A" * 16,
                    "Arn": f"{ARN}role/x",
                    "CreateDate": AT,
                }
                for _, n, _ in self._names()
                for kind in (*ROLES, "somebody")
            ]
        }

    def ListRoleTags(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"Tags": self._tags(asked["RoleName"], "Key", "Value")}

    def ListRolePolicies(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"PolicyNames": ["one", "two"]}

    def _network(self, asked: dict[str, Any], kind: str) -> dict[str, Any]:
        (wanted,) = asked["Filters"]
        found: list[dict[str, Any]] = []
        for lab, _, ours in self._names():
            tags = self._tags(lab, "Key", "Value") if lab else []
            if not ours:
                continue
            if any(
                wanted["Name"] == f"tag:{t['Key']}" and t["Value"] in wanted["Values"] for t in tags
            ):
                key, prefix = NETWORK[kind]
                for number in (1, 2):
                    found.append({key: f"{prefix}{lab}-{number}", "Tags": tags})
                if kind == "SecurityGroups":
                    found.append({key: "sg-default", "GroupName": "default", "Tags": tags})
                if kind == "InternetGateways":
                    for gateway in found:
                        gateway["Attachments"] = [{"VpcId": f"vpc-{lab}-1"}]
        return {kind: found}

    def DescribeSecurityGroups(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self._network(asked, "SecurityGroups")

    def DescribeSubnets(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self._network(asked, "Subnets")

    def DescribeInternetGateways(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self._network(asked, "InternetGateways")

    def DescribeRouteTables(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self._network(asked, "RouteTables")

    def DescribeVpcs(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self._network(asked, "Vpcs")


def _page(config: Any, whole: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The requested page of ``whole``, in the service's own form of paging."""
    at = int(asked.get(config["input_token"]) or 0)
    items = whole[config["result_key"]]
    page = {**whole, config["result_key"]: items[at : at + 1]}
    more = at + 1 < len(items)
    if more:
        page[config["output_token"]] = str(at + 1)
    if "more_results" in config:
        page[config["more_results"]] = more
    return page
