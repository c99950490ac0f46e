"""The task's role may call the lab's models and nothing else, by IAM and by its policies."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lab.posture import (
    INVOKE,
    PROFILE_KEY,
    Check,
    Question,
    RoleFacts,
    judge_iam_models,
    judge_role,
    questions_of,
    rights_of,
    unlisted_model,
)
from lab.record import ServedModel
from tests.unit.lab.good_lab import (
    BOUNDARY,
    FOUNDATION,
    POLICY,
    PROFILE,
    RECORD,
    THROUGH,
    allow,
    missed,
)
from tests.unit.tasks.sites import PLACE


def test_rights_are_those_that_terraform_writes() -> None:
    """should have models, profiles, and models that can be called only through a profile"""
    rights = rights_of(RECORD, PLACE)
    assert rights.direct == {f"{FOUNDATION}vendor.one-v1:0", PROFILE}
    assert rights.through == {
        f"{FOUNDATION}vendor.two-v1:0": {PROFILE},
        "arn:aws:bedrock:us-west-2::foundation-model/vendor.two-v1:0": {PROFILE},
    }
    worldwide = ServedModel(
        model_id="v.x", inference_profile_id="global.v.x", regions=["us-east-1"]
    )
    rights = rights_of(RECORD.model_copy(update={"served": {"x": worldwide}}), PLACE)
    assert "arn:aws:bedrock:::foundation-model/v.x" in rights.through


def test_the_unlisted_model_is_none_of_the_labs() -> None:
    """should choose another if the lab has the first"""
    first = unlisted_model(RECORD)
    served = {**RECORD.served, "x": ServedModel(model_id=first)}
    assert unlisted_model(RECORD.model_copy(update={"served": served})) != first


def iam(said: dict[bool, str] | None = None, **of: str) -> dict[Question, dict[str, str]]:
    """IAM's answers for a good role, changed by ``of``, by the end of the resource."""
    said = said or {True: "allowed", False: "implicitDeny"}
    return {
        question: {
            action: next(
                (word for end, word in of.items() if question.resource.endswith(end)),
                said[question.allowed],
            )
            for action in INVOKE
        }
        for question in questions_of(RECORD, PLACE)
    }


def test_iam_that_refuses_the_unlisted_model_passes() -> None:
    """should also have asked about the lab's models, and in both ways about those with a profile"""
    check = judge_iam_models(iam())
    assert check.passed
    assert f"{unlisted_model(RECORD)}: implicitDeny" in check.found
    behind = [
        q for q in iam() if q.resource.endswith("vendor.two-v1:0") and "foundation" in q.resource
    ]
    assert {(q.allowed, q.profile) for q in behind} == {(True, PROFILE), (False, None)}


def test_iam_that_allows_the_unlisted_model_is_missed() -> None:
    """should name the action and the model"""
    check = judge_iam_models(iam(**{unlisted_model(RECORD): "allowed"}))
    missed(check, f"InvokeModel of {unlisted_model(RECORD)} is allowed")


def test_iam_that_refuses_all_is_missed() -> None:
    """should not take a role without any right for one that refuses only other models"""
    missed(judge_iam_models(iam({True: "explicitDeny", False: "explicitDeny"})), "explicitDeny")
    missed(judge_iam_models({question: {} for question in iam()}), "no answer")
    assert not judge_iam_models({}).passed


def role(*statements: dict[str, Any], boundary: str | None = BOUNDARY, attached: str = "") -> Check:
    policy = copy.deepcopy(POLICY)
    policy["Statement"] += statements
    facts = RoleFacts(boundary, (attached,) if attached else (), {"invoke-models": policy})
    return judge_role(facts, rights_of(RECORD, PLACE), BOUNDARY)


def test_a_role_for_the_labs_models_passes() -> None:
    """should not take a denial for a right"""
    assert role().passed
    facts = RoleFacts(None, (), {"p": {"Statement": POLICY["Statement"][0]}})
    assert judge_role(facts, rights_of(RECORD, PLACE), "").passed


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (allow("*"), "the resource *"),
        (allow(f"{FOUNDATION}*"), f"the resource {FOUNDATION}*"),
        (allow(f"{FOUNDATION}vendor.three"), "vendor.three"),
        (allow(f"{FOUNDATION}vendor.two-v1:0"), "vendor.two"),
        (
            allow(f"{FOUNDATION}vendor.two-v1:0", Condition={"StringLike": {PROFILE_KEY: "*"}}),
            "vendor.two",
        ),
        (
            allow(f"{FOUNDATION}vendor.three", Condition=THROUGH),
            "vendor.three",
        ),
        ({"Effect": "Allow", "Action": "bedrock:*", "Resource": PROFILE}, "the action bedrock:*"),
        (
            {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": PROFILE},
            "the action s3:GetObject",
        ),
        ({"Effect": "Allow", "NotAction": "iam:*", "Resource": PROFILE}, "everything but"),
        (
            {"Effect": "Allow", "Action": "bedrock:InvokeModel", "NotResource": "x"},
            "everything but",
        ),
    ],
)
def test_a_role_with_more_rights_is_missed(statement: dict[str, Any], said: str) -> None:
    """should name the policy and the additional right"""
    missed(role(statement), f"invoke-models: {'the' if 'the ' in said else ''}", said)


def test_another_policy_or_boundary_is_missed() -> None:
    """should miss an attached policy, a missing boundary, and a role without policies"""
    missed(role(attached="arn:aws:iam::aws:policy/AdministratorAccess"), "AdministratorAccess")
    missed(role(boundary=None), "the boundary (none)")
    missed(judge_role(RoleFacts(BOUNDARY, (), {}), rights_of(RECORD, PLACE), BOUNDARY), "no policy")
