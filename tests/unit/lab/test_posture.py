"""Every check of a lab's posture passes for a good lab, and finds each fault."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from lab.errors import PermanentError
from lab.posture import (
    Check,
    CheckName,
    ForbiddenAttempt,
    Ingress,
    Posture,
    Refusal,
    Searched,
    TlsHandshake,
    judge_attempt,
    judge_capacity,
    judge_certificate,
    judge_digest,
    judge_firewall,
    judge_gateway_models,
    judge_key,
    judge_retention,
    judge_searched,
    judge_tags,
    posture_of,
    unknown_check,
)
from tests.unit.lab.good_lab import CLUSTER, NAME, RECORD, TAGS, missed

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
    """should name the rule that is too much"""
    missed(firewall(HOST, rule), said)


def test_a_host_that_is_shut_out_is_missed() -> None:
    """should name the host that should have access and has none, and a task without a group"""
    missed(firewall(), "not 203.0.113.10/32")
    missed(firewall(groups=()), "no security group")


# --- the gateway -----------------------------------------------------------------------------

SHOWN = TlsHandshake(
    version="TLSv1.3", names=(NAME,), not_after=RECORD.expires_at + timedelta(hours=1)
)


def test_the_labs_own_certificate_passes() -> None:
    """should give name, end and version"""
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
    """should miss one that expired, ends before the lab, or has another or a further name"""
    missed(judge_certificate(shown, NAME, RECORD.expires_at), said)


def test_an_attempt_that_should_fail_and_succeeds_is_missed() -> None:
    """should give the answer"""
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
def test_a_model_outside_the_lab_must_be_refused(
    status: int, openai_form: bool, passed: bool
) -> None:
    """should pass only for a refusal of the model itself, in OpenAI's form"""
    check = judge_gateway_models([Refusal("vendor.x", status, openai_form)])
    assert check.passed is passed
    assert f"vendor.x: {status}" in check.found
    assert not judge_gateway_models([]).passed


# --- the image, the state and the tags ---------------------------------------------------------


def test_the_search_is_reported() -> None:
    """should say how much was searched, or where the secret was found"""
    check = judge_searched(CheckName.STATE, Searched("the state and 3 versions before it"))
    assert check.passed
    assert "3 versions" in check.found
    missed(
        judge_searched(CheckName.STATE, Searched("it", ("a private key in the state",))),
        "a private key",
    )


def test_other_capacity_is_missed() -> None:
    """should be the requested one"""
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
    assert RECORD.image is not None
    assert (RECORD.image.tag, RECORD.image.digest) == ("0123", "sha256:abcd")


def test_a_log_that_is_kept_forever_is_missed() -> None:
    """should have an end"""
    assert judge_retention(7).passed
    missed(judge_retention(None), "forever")


def test_tags_of_everything_pass() -> None:
    """should need the end only on the cluster, and no owner on a task, because owners may change"""
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
    """should name the resource and the tag"""
    missed(judge_tags(RECORD, tags), said)


# --- all of it -------------------------------------------------------------------------------


def test_a_posture_names_every_miss() -> None:
    """should raise with each name, the found and the wanted value, in the order of the checks"""
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
    assert "log retention: found forever, wanted an end" in raised.value.message
    Posture(checks=[judge_retention(1)]).raise_if_missed("demo")


def test_long_lists_are_truncated() -> None:
    """should stay readable"""
    rules = [Ingress(f"203.0.113.{n}/32", "tcp", 4000, 4000) for n in range(20, 30)]
    missed(firewall(HOST, *rules), "and 5 more")
