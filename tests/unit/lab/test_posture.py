"""Every check of a lab's posture holds for a lab as it should be, and sees each way to miss it."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lab.errors import PermanentError
from lab.posture import (
    INVOKE,
    PROFILE_KEY,
    Check,
    CheckName,
    Container,
    ForbiddenAttempt,
    Ingress,
    Posture,
    Question,
    Refusal,
    RoleFacts,
    Searched,
    TaskFacts,
    TlsHandshake,
    judge_attempt,
    judge_capacity,
    judge_certificate,
    judge_definition,
    judge_digest,
    judge_environment,
    judge_firewall,
    judge_gateway_models,
    judge_hardening,
    judge_iam_models,
    judge_key,
    judge_retention,
    judge_role,
    judge_searched,
    judge_tags,
    posture_of,
    questions_of,
    rights_of,
    unknown_check,
    unlisted_model,
)
from lab.record import LabRecord, ServedModel
from tests.unit.lab.test_leaks import GATEWAY_KEY, KEY_ID, PEM, SECRET
from tests.unit.tasks.sites import PLACE

AT = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
NAME = "gateway-lab-demo.internal"
FOUNDATION = "arn:aws:bedrock:us-east-1::foundation-model/"
PROFILE = "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.vendor.two-v1:0"
BOUNDARY = "arn:aws:iam::111122223333:policy/gateway-lab-boundary"
KNOWN = {"the gateway's key": GATEWAY_KEY}
RECORD = LabRecord(
    lab="demo",
    owner="somebody",
    created_at=AT,
    expires_at=AT + timedelta(hours=2),
    served={
        "one": ServedModel(model_id="vendor.one-v1:0"),
        "two": ServedModel(
            model_id="vendor.two-v1:0",
            inference_profile_id="us.vendor.two-v1:0",
            regions=["us-east-1", "us-west-2"],
        ),
    },
    image="localhost:4566/gateway-lab:0123@sha256:abcd",
)


def missed(check: Check, *words: str) -> None:
    """The check is missed, and what it found says so in these words."""
    assert not check.passed
    for word in words:
        assert word in check.found


# --- the firewall ----------------------------------------------------------------------------

HOST = Ingress("203.0.113.10/32", "tcp", 4000, 4000)


def firewall(*rules: Ingress, groups: tuple[str, ...] = ("sg-1",)) -> Check:
    return judge_firewall(["203.0.113.10/32"], 4000, groups, rules)


def test_a_firewall_of_exactly_the_hosts_passes() -> None:
    """should name the hosts and the group"""
    check = firewall(HOST)
    assert check.passed
    assert check.found == "203.0.113.10/32 on tcp 4000 in sg-1"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Ingress("0.0.0.0/0", "tcp", 4000, 4000), "also 0.0.0.0/0 on tcp 4000"),
        (Ingress("203.0.113.10/32", "tcp", 22, 22), "also 203.0.113.10/32 on tcp 22"),
        (Ingress("203.0.113.10/32", "tcp", 4000, 4001), "on tcp 4000-4001"),
        (Ingress("203.0.113.10/32", "-1", None, None), "on every port"),
        (Ingress("203.0.113.11/32", "tcp", 4000, 4000), "203.0.113.11/32"),
        (Ingress("::/0", "tcp", 4000, 4000), "also ::/0"),
        (Ingress("prefix list pl-1", "tcp", 4000, 4000), "prefix list pl-1"),
        (Ingress("group sg-2", "tcp", 4000, 4000), "group sg-2"),
    ],
)
def test_an_open_firewall_is_missed(rule: Ingress, said: str) -> None:
    """should name the rule that is one too many"""
    missed(firewall(HOST, rule), said)


def test_a_host_that_is_shut_out_is_missed() -> None:
    """should name who should get in and does not, and a task without any group"""
    missed(firewall(), "not 203.0.113.10/32")
    missed(firewall(groups=()), "no security group")


# --- the gateway -----------------------------------------------------------------------------

SHOWN = TlsHandshake(
    version="TLSv1.3", names=(NAME,), not_after=RECORD.expires_at + timedelta(hours=1)
)


def test_the_labs_own_certificate_passes() -> None:
    """should tell name, end and version"""
    check = judge_certificate(SHOWN, NAME, RECORD.expires_at)
    assert check.passed
    assert NAME in check.found
    assert "TLSv1.3" in check.found


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (TlsHandshake(refused="the certificate has expired"), "has expired"),
        (replace(SHOWN, not_after=RECORD.expires_at - timedelta(hours=1)), "2030-01-31T13"),
        (replace(SHOWN, names=("gateway-lab-other.internal",)), "gateway-lab-other"),
        (replace(SHOWN, names=(NAME, "more.internal")), "more.internal"),
        (TlsHandshake(), "no certificate"),
    ],
)
def test_another_certificate_is_missed(shown: TlsHandshake, said: str) -> None:
    """should miss one that expired or will before the lab, and one for another or a further name"""
    missed(judge_certificate(shown, NAME, RECORD.expires_at), said)


def test_what_must_fail_and_does_not_is_missed() -> None:
    """should say what was said"""
    assert judge_attempt(
        CheckName.OLD_TLS, "none", ForbiddenAttempt(refused=True, said="refused")
    ).passed
    missed(
        judge_attempt(CheckName.OLD_TLS, "none", ForbiddenAttempt(refused=False, said="TLSv1.1")),
        "TLSv1.1",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        Refusal("GET /docs without a key", 200, openai_form=False),
        Refusal("GET /v1/models without a key", 500, openai_form=True),
        Refusal("GET /v1/models with a wrong key", 400, openai_form=True),
        Refusal("GET / without a key", 401, openai_form=False),
        Refusal("GET / without a key", 404, openai_form=True),
    ],
)
def test_a_route_that_needs_no_key_is_missed(wrong: Refusal) -> None:
    """should name the request and its answer"""
    good = Refusal("GET /ui without a key", 401, openai_form=True)
    assert judge_key([good]).passed
    missed(judge_key([good, wrong]), wrong.asked, str(wrong.status))
    assert not judge_key([]).passed


@pytest.mark.parametrize(
    ("status", "openai_form", "passed"),
    [
        (400, True, True),
        (404, True, True),
        (200, False, False),
        (200, True, False),
        (401, True, False),
        (429, True, False),
        (500, True, False),
        (400, False, False),
    ],
)
def test_a_model_that_is_not_the_labs_is_refused(
    status: int, openai_form: bool, passed: bool
) -> None:
    """should pass only for a refusal of the model itself, in OpenAI's form"""
    check = judge_gateway_models([Refusal("vendor.x", status, openai_form)])
    assert check.passed is passed
    assert f"vendor.x: {status}" in check.found
    assert not judge_gateway_models([]).passed


# --- IAM -------------------------------------------------------------------------------------


def test_rights_are_those_that_terraform_writes() -> None:
    """should have models, profiles, and models that only a profile leads to"""
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
    """should choose another where the lab has the first"""
    first = unlisted_model(RECORD)
    served = {**RECORD.served, "x": ServedModel(model_id=first)}
    assert unlisted_model(RECORD.model_copy(update={"served": served})) != first


def iam(said: dict[bool, str] | None = None, **of: str) -> dict[Question, dict[str, str]]:
    """What IAM says of a good role, but for ``of``, by the end of the resource."""
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
    """should have asked the lab's models too, and models behind a profile in both ways"""
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
    """should not take a role that may nothing for one that refuses what it should"""
    missed(judge_iam_models(iam({True: "explicitDeny", False: "explicitDeny"})), "explicitDeny")
    missed(judge_iam_models({question: {} for question in iam()}), "no answer")
    assert not judge_iam_models({}).passed


def allow(*resources: str, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": sorted(INVOKE), "Resource": list(resources), **more}


THROUGH = {"StringEquals": {PROFILE_KEY: PROFILE}}
POLICY: dict[str, Any] = {
    "Statement": [
        allow(f"{FOUNDATION}vendor.one-v1:0"),
        allow(PROFILE),
        allow(f"{FOUNDATION}vendor.two-v1:0", Condition=THROUGH),
        {"Effect": "Deny", "Action": "*", "Resource": "*"},
    ]
}


def role(*statements: dict[str, Any], boundary: str | None = BOUNDARY, attached: str = "") -> Check:
    policy = copy.deepcopy(POLICY)
    policy["Statement"] += statements
    facts = RoleFacts(boundary, (attached,) if attached else (), {"invoke-models": policy})
    return judge_role(facts, rights_of(RECORD, PLACE), BOUNDARY)


def test_a_role_of_the_labs_models_passes() -> None:
    """should take a denial for no right"""
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
def test_a_role_that_may_more_is_missed(statement: dict[str, Any], said: str) -> None:
    """should name the policy and what is too much"""
    missed(role(statement), f"invoke-models: {'the' if 'the ' in said else ''}", said)


def test_another_policy_or_boundary_is_missed() -> None:
    """should miss an attached policy, a boundary that is gone, and a role with nothing"""
    missed(role(attached="arn:aws:iam::aws:policy/AdministratorAccess"), "AdministratorAccess")
    missed(role(boundary=None), "the boundary (none)")
    missed(judge_role(RoleFacts(BOUNDARY, (), {}), rights_of(RECORD, PLACE), BOUNDARY), "no policy")


# --- the task --------------------------------------------------------------------------------

SECRETS = {
    name: f"arn:aws:secretsmanager:us-east-1:111122223333:secret:{name}"
    for name in ("LITELLM_MASTER_KEY", "GATEWAY_TLS_PEM")
}
CONTAINER = Container(
    name="gateway",
    text='{"name": "gateway"}',
    environment={"PORT": "4000"},
    secrets=SECRETS,
    user="65532:65532",
    read_only=True,
    dropped=("ALL",),
)
TASK = TaskFacts(
    arn="arn:aws:ecs:us-east-1:111122223333:task/gateway-lab-demo/1",
    revision="gateway-lab-demo:3",
    containers=(CONTAINER,),
    overrides={},
    capacity="FARGATE_SPOT",
    image_digest="sha256:abcd",
    can_exec=False,
    groups=("sg-1",),
)


def of(**changes: Any) -> TaskFacts:
    return replace(TASK, containers=(replace(CONTAINER, **changes),))


def test_a_task_as_terraform_makes_it_passes() -> None:
    """should find nothing in it, and say what it has by reference"""
    assert judge_definition(TASK, KNOWN).passed
    assert "LITELLM_MASTER_KEY" in judge_definition(TASK, KNOWN).found
    assert judge_environment(TASK, KNOWN).passed
    assert judge_hardening(TASK).passed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"command: {KEY_ID}", "an AWS access key ID in gateway"),
        (f"label: {GATEWAY_KEY}", "the gateway's key in gateway"),
        (PEM, "a private key in gateway"),
    ],
)
def test_a_key_in_the_task_definition_is_missed(text: str, said: str) -> None:
    """should name its kind and the container, not the key"""
    check = judge_definition(of(text=text), KNOWN)
    missed(check, said)
    assert text.split(": ")[-1] not in check.found


def test_a_secret_that_is_no_reference_is_missed() -> None:
    """should want key and certificate from Secrets Manager"""
    missed(judge_definition(of(secrets={}), KNOWN), "GATEWAY_TLS_PEM not from Secrets Manager")
    elsewhere = {**SECRETS, "LITELLM_MASTER_KEY": "arn:aws:ssm:us-east-1:1:parameter/key"}
    missed(judge_definition(of(secrets=elsewhere), KNOWN), "LITELLM_MASTER_KEY not from")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": "anything"}, "the variable AWS_ACCESS_KEY_ID"),
        ({"AWS_BEARER_TOKEN_BEDROCK": "x"}, "the variable AWS_BEARER_TOKEN_BEDROCK"),
        ({"LITELLM_MASTER_KEY": "x"}, "LITELLM_MASTER_KEY as plain text"),
        ({"NOTE": KEY_ID}, "an AWS access key ID in NOTE"),
        ({"OTHER_SECRET_ACCESS_KEY": SECRET}, "an AWS secret access key in OTHER"),
        ({"NOTE": GATEWAY_KEY}, "the gateway's key in NOTE"),
        ({"NOTE": PEM}, "a private key in NOTE"),
    ],
)
def test_a_key_in_the_environment_is_missed(environment: dict[str, str], said: str) -> None:
    """should look at the revision's and at what the task was started with beyond it"""
    for task in (of(environment=environment), replace(TASK, overrides=environment)):
        check = judge_environment(task, KNOWN)
        missed(check, said)
        assert GATEWAY_KEY not in check.found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"user": ""}, "runs as whom its image says"),
        ({"user": "0:0"}, "runs as 0:0"),
        ({"user": "root"}, "runs as root"),
        ({"read_only": False}, "may write to its root file system"),
        ({"dropped": ()}, "keeps capabilities"),
        ({"added": ("SYS_PTRACE",)}, "keeps capabilities"),
        ({"privileged": True}, "is privileged"),
    ],
)
def test_a_task_with_powers_is_missed(changes: dict[str, Any], said: str) -> None:
    """should name the container and what it may"""
    missed(judge_hardening(of(**changes)), said)


def test_a_task_that_can_be_entered_is_missed() -> None:
    """should miss ECS Exec, and a task with no container at all"""
    missed(judge_hardening(replace(TASK, can_exec=True)), "commands may be run")
    assert not judge_hardening(replace(TASK, containers=())).passed


def test_no_value_of_the_environment_is_shown() -> None:
    """should not be in the facts' own text, which a log may show"""
    assert GATEWAY_KEY not in repr(of(environment={"X": GATEWAY_KEY}, text=GATEWAY_KEY))
    assert GATEWAY_KEY not in repr(replace(TASK, overrides={"X": GATEWAY_KEY}))


def test_what_was_searched_is_told() -> None:
    """should say how much was looked at, or where what was found"""
    check = judge_searched(CheckName.STATE, Searched("the state and 3 versions before it"))
    assert check.passed
    assert "3 versions" in check.found
    missed(
        judge_searched(CheckName.STATE, Searched("it", ("a private key in the state",))),
        "a private key",
    )


def test_other_capacity_is_missed() -> None:
    """should be the one that was asked for"""
    assert judge_capacity("FARGATE_SPOT", "FARGATE_SPOT").passed
    missed(judge_capacity("FARGATE_SPOT", "FARGATE"), "FARGATE")
    missed(judge_capacity("FARGATE_SPOT", None), "none")


def test_another_digest_is_missed() -> None:
    """should be the same in three places"""
    assert judge_digest("sha256:a", "sha256:a", "sha256:a").passed
    missed(judge_digest("sha256:a", "sha256:b", "sha256:a"), "runs sha256:b")
    missed(judge_digest("sha256:a", "sha256:a", "sha256:b"), "in the registry sha256:b")
    missed(judge_digest("sha256:a", None, None), "runs none")
    assert not judge_digest(None, None, None).passed
    assert (RECORD.image_tag, RECORD.image_digest) == ("0123", "sha256:abcd")


def test_a_log_that_is_kept_for_ever_is_missed() -> None:
    """should have some end"""
    assert judge_retention(7).passed
    missed(judge_retention(None), "for ever")


TAGS = {"lab:id": "demo", "lab:project": "gateway-lab", "lab:owner": "somebody"}
CLUSTER = {**TAGS, "lab:expires-at": "2030-01-31T14:00:00Z"}


def test_tags_of_everything_pass() -> None:
    """should want the end on the cluster alone, and of a task no owner, who may have changed"""
    task = {**TAGS, "lab:owner": "the one before"}
    assert judge_tags(RECORD, {"cluster": CLUSTER, "service": TAGS, "task": task}).passed


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"cluster": TAGS}, "cluster has lab:expires-at (none)"),
        ({"cluster": CLUSTER, "VPC vpc-1": {}}, "VPC vpc-1 has lab:id (none)"),
        ({"cluster": {**CLUSTER, "lab:id": "other"}}, "cluster has lab:id other"),
        ({"cluster": CLUSTER, "service": {**TAGS, "lab:owner": "x"}}, "service has lab:owner x"),
        ({"cluster": CLUSTER, "task": {"lab:id": "demo"}}, "task has lab:project (none)"),
    ],
)
def test_a_missing_tag_is_missed(tags: dict[str, dict[str, str]], said: str) -> None:
    """should name the thing and the tag"""
    missed(judge_tags(RECORD, tags), said)


# --- all of it -------------------------------------------------------------------------------


def test_a_posture_names_every_miss() -> None:
    """should raise with each name, what was found and what was wanted, in the checks' own order"""
    made = posture_of(
        [
            judge_retention(None),
            judge_capacity("FARGATE", "FARGATE"),
            unknown_check(CheckName.FIREWALL, "no"),
        ]
    )
    assert [check.name for check in made.checks] == [
        "firewall",
        "capacity provider",
        "log retention",
    ]
    assert made.summary == "1 of 3 checks passed"
    with pytest.raises(PermanentError) as raised:
        made.raise_if_missed("demo")
    assert "missed 2 of 3 checks" in raised.value.message
    assert "firewall: found none: no" in raised.value.message
    assert "log retention: found for ever, wanted an end" in raised.value.message
    Posture(checks=[judge_retention(1)]).raise_if_missed("demo")


def test_long_lists_are_cut() -> None:
    """should stay readable"""
    rules = [Ingress(f"203.0.113.{n}/32", "tcp", 4000, 4000) for n in range(20, 30)]
    missed(firewall(HOST, *rules), "and 5 more")
