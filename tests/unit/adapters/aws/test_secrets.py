"""A secret is read by its name and version; a deleted one says how to get another."""

from __future__ import annotations

from datetime import timedelta

import pytest

from adapters.aws.secrets import Secrets
from lab.errors import PermanentError
from tests.unit.adapters.aws.stubs import AT, NAME, Stubs

SECRET = f"{NAME}/gateway-key"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def secrets(stubs: Stubs) -> Secrets:
    return Secrets(stubs.cloud)


def test_a_missing_secret_is_no_error(stubs: Stubs, secrets: Secrets) -> None:
    """should return its value, or that there is none, and fail for another reason only"""
    stubs.says(
        "secretsmanager",
        "get_secret_value",
        {"SecretString": "PEM"},  # pragma: allowlist secret: made up
        SecretId="s",
        VersionStage="AWSCURRENT",
    )
    stubs.fails("secretsmanager", "get_secret_value", "ResourceNotFoundException")
    assert secrets.read("s") == "PEM"
    assert secrets.read("s") is None
    stubs.fails("secretsmanager", "get_secret_value", "AccessDeniedException")
    with pytest.raises(PermanentError, match="AccessDenied"):
        secrets.read("s")


@pytest.mark.parametrize(
    ("code", "words", "reported"),
    [
        ("ResourceNotFoundException", "can't find the specified secret", "is gone"),
        ("InvalidRequestException", "it was marked for deletion", "waits for its deletion"),
    ],
)
def test_a_key_that_was_deleted_says_how_to_get_another(
    stubs: Stubs, secrets: Secrets, code: str, words: str, reported: str
) -> None:
    """should name the secret, the remedy, and what a running lab does until then"""
    stubs.fails("secretsmanager", "get_secret_value", code, message=words)
    with pytest.raises(PermanentError, match=f"the secret demo/key {reported}") as caught:
        secrets.require("demo/key")
    assert "lab-up" in caught.value.hint
    assert "serves on" in caught.value.hint


def test_a_secret_without_a_value_is_no_key(stubs: Stubs, secrets: Secrets) -> None:
    """should count as missing"""
    stubs.says("secretsmanager", "get_secret_value", {})
    with pytest.raises(PermanentError, match="the secret demo/key is gone, or has no value"):
        secrets.require("demo/key")


def test_another_refusal_of_the_key_stays_unchanged(stubs: Stubs, secrets: Secrets) -> None:
    """should not take every invalid request for a deleted secret"""
    stubs.fails("secretsmanager", "get_secret_value", "InvalidRequestException", message="odd")
    with pytest.raises(PermanentError, match="InvalidRequestException: odd"):
        secrets.require("demo/key")


def test_a_secret_that_waits_for_its_deletion_is_restored(stubs: Stubs, secrets: Secrets) -> None:
    """should restore only that one, not an active or a missing secret"""
    living, doomed = {"Name": "s"}, {"Name": "s", "DeletedDate": AT}
    stubs.says("secretsmanager", "describe_secret", living, SecretId="s")
    assert secrets.restore("s") is False
    stubs.fails("secretsmanager", "describe_secret", "ResourceNotFoundException")
    assert secrets.restore("s") is False
    stubs.says("secretsmanager", "describe_secret", doomed, SecretId="s")
    stubs.says("secretsmanager", "restore_secret", {"Name": "s"}, SecretId="s")
    assert secrets.restore("s") is True


@pytest.mark.parametrize("value", ["sk-old", None])
def test_the_previous_key_is_read_by_its_label(
    stubs: Stubs, secrets: Secrets, value: str | None
) -> None:
    """should be the value that the current one has replaced, if there was one"""
    said = {"SecretString": value} if value else {}
    stubs.says(
        "secretsmanager", "get_secret_value", said, SecretId=SECRET, VersionStage="AWSPREVIOUS"
    )
    assert secrets.read(SECRET, "AWSPREVIOUS") == value


def test_a_first_key_has_no_previous_one(stubs: Stubs, secrets: Secrets) -> None:
    """should be None, which is no error"""
    stubs.fails("secretsmanager", "get_secret_value", "ResourceNotFoundException")
    assert secrets.read(SECRET, "AWSPREVIOUS") is None


def test_a_key_is_as_old_as_its_current_version(stubs: Stubs, secrets: Secrets) -> None:
    """should be the time of the current value, not of the secret or of an older value"""
    versions = [
        {"VersionId": "a" * 32, "VersionStages": ["AWSPREVIOUS"], "CreatedDate": AT - MINUTE},
        {"VersionId": "b" * 32, "VersionStages": ["AWSCURRENT"], "CreatedDate": AT},
        {"VersionId": "c" * 32, "CreatedDate": AT + MINUTE},
    ]
    said = {"Versions": versions}
    stubs.says("secretsmanager", "list_secret_version_ids", said, SecretId=SECRET)
    assert secrets.written_at(SECRET) == AT


def test_a_missing_secret_has_no_age(stubs: Stubs, secrets: Secrets) -> None:
    """should be None for a secret that does not exist"""
    stubs.fails("secretsmanager", "list_secret_version_ids", "ResourceNotFoundException")
    assert secrets.written_at(SECRET) is None
