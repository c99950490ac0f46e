"""A refusal names the missing action and its resource, in whatever form a cloud words it."""

from __future__ import annotations

import pytest

from adapters.aws.denial import find_denial

ROLE = "arn:aws:iam::111122223333:role/gateway-lab-demo-task"


@pytest.mark.parametrize(
    ("said", "action", "resource"),
    [
        (
            "User: arn:aws:iam::111122223333:user/x is not authorized to perform: ecs:CreateCluster"
            " on resource: arn:aws:ecs:us-east-1:111122223333:cluster/gateway-lab-demo because no "
            "identity-based policy allows the ecs:CreateCluster action",
            "ecs:CreateCluster",
            "arn:aws:ecs:us-east-1:111122223333:cluster/gateway-lab-demo",
        ),
        (
            "You are not authorized to perform this operation. User: arn:aws:sts::1:assumed-role/a"
            f"/b is not authorized to perform: iam:PassRole on resource: {ROLE} because no "
            "identity-based policy allows it. Encoded authorization failure message: abc",
            "iam:PassRole",
            ROLE,
        ),
        (
            "User: arn:aws:iam::1:user/x is not authorized to perform: s3:PutObject on resource: "
            '"arn:aws:s3:::bucket/key" with an explicit deny in a service control policy',
            "s3:PutObject",
            "arn:aws:s3:::bucket/key",
        ),
        (
            "User: u is not authorized to perform: ecr:GetAuthorizationToken on resource: * because"
            " no identity-based policy allows the ecr:GetAuthorizationToken action",
            "ecr:GetAuthorizationToken",
            None,
        ),
        (
            "denied: User: u is not authorized to perform: ecr:InitiateLayerUpload on resource: "
            "arn:aws:ecr:us-east-1:1:repository/gateway-lab because no policy",
            "ecr:InitiateLayerUpload",
            "arn:aws:ecr:us-east-1:1:repository/gateway-lab",
        ),
        (
            "creating EC2 VPC: operation error EC2: CreateVpc, https response error StatusCode: 403"
            ", RequestID: 1, api error UnauthorizedOperation: You are not authorized to perform "
            "this operation. Encoded authorization failure message: abc",
            "ec2:CreateVpc",
            None,
        ),
        (
            "operation error S3: HeadObject, https response error StatusCode: 403, RequestID: , "
            "HostID: , api error Forbidden: Forbidden",
            "s3:GetObject",
            None,
        ),
    ],
)
def test_a_refusal_names_its_action(said: str, action: str, resource: str | None) -> None:
    """should find action and resource in the messages of clouds, Terraform and Docker"""
    denial = find_denial(said)
    assert denial is not None
    assert (denial.action, denial.resource) == (action, resource)
    assert f"Allow {action} " in denial.hint
    assert "docs/deployer-policy.json" in denial.hint


def test_a_refused_head_request_has_no_message() -> None:
    """should name the action by the operation, as S3 authorises it"""
    denial = find_denial("Forbidden", "HeadBucket")
    assert denial is not None
    assert str(denial) == "s3:ListBucket"


@pytest.mark.parametrize(
    "said",
    [
        "operation error STS: GetCallerIdentity, https response error StatusCode: 403, "
        "RequestID: 1, api error InvalidClientTokenId: The security token is invalid",
        "Error acquiring the state lock",
        "ThrottlingException: Rate exceeded",
        "",
    ],
)
def test_other_errors_are_no_refusals(said: str) -> None:
    """should leave them to the code that knows them"""
    assert find_denial(said) is None
