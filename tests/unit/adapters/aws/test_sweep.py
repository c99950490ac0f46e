"""Everything of a lab is found, on whatever page, and nothing of anybody else's is touched."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.aws.sweep import Leftover, Sweeper
from lab.errors import PermanentError
from tests.unit.adapters.aws.fake_account import ROLES, Account, Refusal

#: Two a lab in the network, so that the second stands on the next page.
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
    """should find each thing by name or tag, on whatever page, and say where it looked"""
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


def test_another_labs_things_are_left_alone(account: Account) -> None:
    """should not take a lab whose name begins the same for this one"""
    account.has("demo-2")
    account.has("de")
    assert Sweeper(account.cloud).look("demo")[1] == []


def test_all_labs_are_found_by_their_tags(account: Account) -> None:
    """should find every lab's things without being told a name"""
    account.has("other")
    account.has("demo")
    found = Sweeper(account.cloud).look(None)[1]
    assert kinds(found) == ORDER
    for lab in ("demo", "other"):
        assert kinds([item for item in found if item.lab == lab]) == ORDER


def test_a_name_alone_is_not_ours(account: Account) -> None:
    """should leave alone what is called like a lab's but does not carry the project's tags"""
    account.has("theirs", ours=False)
    assert Sweeper(account.cloud).look(None)[1] == []


def test_what_bears_another_name_is_not_even_looked_at(account: Account) -> None:
    """should ask nothing of a thing that is certainly somebody else's: it may not be allowed to"""
    account.has("demo")
    Sweeper(account.cloud).look(None)
    assert any("demo" in str(asked) for _, asked in account.calls)
    assert [call for call in account.calls if "somebody-elses" in str(call)] == []


def test_nothing_is_removed_by_looking(account: Account) -> None:
    """should ask questions only"""
    account.has("demo")
    Sweeper(account.cloud).look("demo")
    Sweeper(account.cloud).look(None)
    assert [name for name, _ in account.calls if not name.startswith(("List", "Describe"))] == []


def test_each_thing_tells_how_it_is_removed(account: Account) -> None:
    """should give a command that names the thing"""
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


def test_things_are_removed_in_the_order_that_aws_allows(account: Account) -> None:
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


def test_what_cannot_be_removed_keeps_nothing_else_from_it(account: Account) -> None:
    """should tell it and go on"""
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
def test_a_look_that_failed_is_told(account: Account, where: str) -> None:
    """should not report a clean account where it could not look"""
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
def test_what_goes_while_it_is_looked_at_is_gone(
    account: Account, where: str, code: str, message: str, kind: str
) -> None:
    """should neither report it nor keep the look from finding the rest"""
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
def test_a_thing_that_could_not_be_looked_at_is_told(
    account: Account, where: str, code: str, message: str
) -> None:
    """should not take for gone what AWS does not say is gone"""
    account.has("demo")
    account.refused = {where: Refusal(code, message)}
    with pytest.raises(PermanentError, match="looking for "):
        Sweeper(account.cloud).look(None)


def test_a_role_that_goes_before_its_region_is_asked_is_gone(account: Account) -> None:
    """should pass over it, also where the lab is known and only the region is asked for"""
    account.has("demo")
    account.refused = {"ListRoleTags": Refusal("NoSuchEntity", of="demo-task")}
    roles = [item.name for item in Sweeper(account.cloud).look("demo")[1] if item.kind == "role"]
    assert roles == [f"gateway-lab-demo-{role}" for role in ROLES if role != "task"]
