"""Everything of a lab is found, on whatever page, and nothing of another owner is changed."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.aws.sweep import Leftover, Sweeper
from lab.errors import PermanentError
from tests.unit.adapters.aws.fake_account import ROLES, Account, Refusal

#: Two network resources of each kind a lab, so that the second is on the next page.
ORDER = [
    *("schedule group", "state machine", "service", "cluster", "task definition", "secret"),
    "log group",
    *("security group", "subnet", "internet gateway", "route table", "vpc"),
    "role",
]


@pytest.fixture(scope="module")
def one_account() -> Account:
    return Account()


@pytest.fixture
def account(one_account: Account) -> Account:
    return one_account.empty()


def kinds(found: list[Leftover]) -> list[str]:
    """The kinds that were found, each once, in their order."""
    return list(dict.fromkeys(item.kind for item in found))


def test_everything_of_a_lab_is_found(account: Account) -> None:
    """should find each resource by name or tag, on whatever page, and say where it looked"""
    account.has("demo-2")
    account.has("demo")
    looked_at, found = Sweeper(account.cloud).look("demo")
    assert len(looked_at) == 8
    assert kinds(found) == ORDER
    assert {item.lab for item in found} == {"demo"}
    assert not [item for item in found if "demo-2" in item.name.removesuffix("-demo-2")]
    many = {kind: sum(item.kind == kind for item in found) for kind in ORDER}
    assert many == dict.fromkeys(ORDER, 1) | {
        **dict.fromkeys(ORDER[7:12], 2),
        "role": len(ROLES),
        "secret": 2,
    }


def test_resources_of_another_lab_are_left_alone(account: Account) -> None:
    """should not confuse this lab with one whose name begins the same"""
    account.has("demo-2")
    account.has("de")
    assert Sweeper(account.cloud).look("demo")[1] == []


def test_all_labs_are_found_by_their_tags(account: Account) -> None:
    """should find every lab's resources without a name"""
    account.has("other")
    account.has("demo")
    found = Sweeper(account.cloud).look(None)[1]
    assert kinds(found) == ORDER
    for lab in ("demo", "other"):
        assert kinds([item for item in found if item.lab == lab]) == ORDER


def test_a_name_without_tags_is_not_ours(account: Account) -> None:
    """should ignore a resource with a lab's name but without the project's tags"""
    account.has("theirs", ours=False)
    assert Sweeper(account.cloud).look(None)[1] == []


def test_resources_with_another_name_are_not_read(account: Account) -> None:
    """should ask nothing about another owner's resource: it may not be allowed to"""
    account.has("demo")
    Sweeper(account.cloud).look(None)
    assert any("demo" in str(asked) for _, asked in account.calls)
    assert [call for call in account.calls if "somebody-elses" in str(call)] == []


def test_a_look_removes_nothing(account: Account) -> None:
    """should only read"""
    account.has("demo")
    Sweeper(account.cloud).look("demo")
    Sweeper(account.cloud).look(None)
    assert [name for name, _ in account.calls if not name.startswith(("List", "Describe"))] == []


def test_each_resource_names_the_command_that_removes_it(account: Account) -> None:
    """should give a command that names the resource"""
    account.has("demo")
    found = Sweeper(account.cloud).look("demo")[1]
    for item in found:
        assert item.command.startswith("aws ")
        assert item.name in item.command
    commands = {item.command for item in found}
    assert "aws ec2 delete-vpc --vpc-id vpc-demo-1" in commands
    assert "aws ec2 delete-security-group --group-id sg-demo-1" in commands


REMOVALS = [
    *("DeleteScheduleGroup", "DeleteStateMachine", "DeleteService"),
    *("StopTask", "DeleteCluster", "DeregisterTaskDefinition", "DeleteTaskDefinitions"),
    *("DeleteSecret", "DeleteLogGroup", "DeleteSecurityGroup", "DeleteSubnet"),
    *("DetachInternetGateway", "DeleteInternetGateway", "DeleteRouteTable", "DeleteVpc"),
    *("DeleteRolePolicy", "DeleteRole"),
]


def removals(account: Account) -> list[tuple[str, dict[str, Any]]]:
    return [call for call in account.calls if not call[0].startswith(("List", "Describe"))]


def test_resources_are_removed_in_the_order_that_aws_allows(account: Account) -> None:
    """should stop a service before its cluster, empty a VPC before it, a role of its policies"""
    account.has("demo")
    sweeper = Sweeper(account.cloud)
    said: list[str] = []
    found = sweeper.look("demo")[1]
    sweeper.remove(found, said.append)
    calls = removals(account)
    assert list(dict.fromkeys(name for name, _ in calls)) == REMOVALS
    assert said == [f"removed {item.kind} {item.name}" for item in found]
    assert [p["PolicyName"] for n, p in calls if n == "DeleteRolePolicy"] == ["one", "two"] * 4
    assert sum(name == "StopTask" for name, _ in calls) == 2
    secrets = [params for name, params in calls if name == "DeleteSecret"]
    assert secrets == [
        {"SecretId": f"gateway-lab-demo/{what}", "ForceDeleteWithoutRecovery": True}
        for what in ("gateway-key", "gateway-tls")
    ]
    (service,) = (params for name, params in calls if name == "DeleteService")
    assert service["force"] is True


def test_one_failed_removal_does_not_stop_the_others(account: Account) -> None:
    """should log it and go on"""
    account.has("demo")
    account.refused = {"DeleteCluster": Refusal(), "DeleteSecurityGroup": Refusal()}
    sweeper = Sweeper(account.cloud)
    said: list[str] = []
    sweeper.remove(sweeper.look("demo")[1], said.append)
    assert list(dict.fromkeys(name for name, _ in removals(account))) == REMOVALS
    refused = [line for line in said if line.startswith("not removed: ")]
    assert len(refused) == 3
    assert refused[0].startswith("not removed: removing cluster gateway-lab-demo: ")
    assert "it is in use" in refused[0]
    assert "removed vpc vpc-demo-2" in said


@pytest.mark.parametrize("where", ["ListScheduleGroups", "DescribeClusters", "ListRoles"])
def test_a_failed_look_is_reported(account: Account, where: str) -> None:
    """should not report a clean account if it could not look"""
    account.refused = {where: Refusal()}
    with pytest.raises(PermanentError, match="looking for "):
        Sweeper(account.cloud).look("demo")


@pytest.mark.parametrize(
    ("where", "code", "message", "kind"),
    [
        ("ListTagsForResource", "ResourceNotFoundException", "", "schedule group"),
        ("ListTagsForResource", "ResourceNotFound", "", "state machine"),
        ("ListServices", "ClusterNotFoundException", "", "cluster"),
        (
            "DescribeTaskDefinition",
            "ClientException",
            "Unable to describe task definition.",
            "task definition",
        ),
        ("ListTagsLogGroup", "ResourceNotFoundException", "", "log group"),
        ("ListRoleTags", "NoSuchEntity", "", "role"),
    ],
)
def test_a_resource_that_is_deleted_meanwhile_is_gone(
    account: Account, where: str, code: str, message: str, kind: str
) -> None:
    """should not report it, and should still find the others"""
    account.has("going")
    account.has("demo")
    account.refused = {where: Refusal(code, message, of="going")}
    found = Sweeper(account.cloud).look(None)[1]
    assert kinds([item for item in found if item.lab == "demo"]) == ORDER
    assert kind not in kinds([item for item in found if item.lab == "going"])


@pytest.mark.parametrize(
    ("where", "code", "message"),
    [
        ("ListTagsForResource", "AccessDeniedException", "not allowed"),
        ("DescribeTaskDefinition", "ClientException", "too many requests in flight"),
        ("ListServices", "InvalidParameterException", ""),
    ],
)
def test_a_resource_that_could_not_be_read_is_reported(
    account: Account, where: str, code: str, message: str
) -> None:
    """should not take a resource for gone unless AWS says so"""
    account.has("demo")
    account.refused = {where: Refusal(code, message)}
    with pytest.raises(PermanentError, match="looking for "):
        Sweeper(account.cloud).look(None)


def test_a_role_that_is_deleted_before_its_region_is_read_is_gone(account: Account) -> None:
    """should skip it, even if the lab is known and only the region is read"""
    account.has("demo")
    account.refused = {"ListRoleTags": Refusal("NoSuchEntity", of="demo-task")}
    roles = [item.name for item in Sweeper(account.cloud).look("demo")[1] if item.kind == "role"]
    assert roles == [f"gateway-lab-demo-{role}" for role in ROLES if role != "task"]
