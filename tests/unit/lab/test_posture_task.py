"""A task with a key in plain text, or with more rights than it needs, is missed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lab.posture import TaskFacts, judge_definition, judge_environment, judge_hardening
from tests.unit.lab.good_lab import CONTAINER, KNOWN, SECRETS, TASK, missed
from tests.unit.lab.test_leaks import GATEWAY_KEY, KEY_ID, PEM, SECRET


def of(**changes: Any) -> TaskFacts:
    return replace(TASK, containers=(replace(CONTAINER, **changes),))


def test_a_task_as_terraform_makes_it_passes() -> None:
    """should find no fault in it, and name its references to secrets"""
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
    """should require key and certificate from Secrets Manager"""
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
    """should check the revision's environment and what the start of the task added"""
    for task in (of(environment=environment), replace(TASK, overrides=environment)):
        check = judge_environment(task, KNOWN)
        missed(check, said)
        assert GATEWAY_KEY not in check.found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"user": ""}, "runs as the user of its image"),
        ({"user": "0:0"}, "runs as 0:0"),
        ({"user": "root"}, "runs as root"),
        ({"read_only": False}, "may write to its root file system"),
        ({"dropped": ()}, "keeps capabilities"),
        ({"added": ("SYS_PTRACE",)}, "keeps capabilities"),
        ({"privileged": True}, "is privileged"),
    ],
)
def test_a_task_with_privileges_is_missed(changes: dict[str, Any], said: str) -> None:
    """should name the container and its privileges"""
    missed(judge_hardening(of(**changes)), said)


def test_a_task_that_can_be_entered_is_missed() -> None:
    """should miss ECS Exec, and a task without any container"""
    missed(judge_hardening(replace(TASK, can_exec=True)), "commands may be run")
    assert not judge_hardening(replace(TASK, containers=())).passed


def test_no_value_of_the_environment_is_shown() -> None:
    """should not be in the facts' own text, which a log may show"""
    assert GATEWAY_KEY not in repr(of(environment={"X": GATEWAY_KEY}, text=GATEWAY_KEY))
    assert GATEWAY_KEY not in repr(replace(TASK, overrides={"X": GATEWAY_KEY}))
