"""Every name that is made from a lab's name is valid for its service."""

from __future__ import annotations

import re

import pytest

from lab import names
from lab.errors import InvalidInputError

LONGEST = "a" * names.LAB_NAME_MAX
DASHED = "a-b-c-d-e-f-g-h-i-jk"
LABS = ["ab", "demo", LONGEST, DASHED]
ROLE = r"[\w+=,.@-]{1,64}"
CLUSTER = r"[A-Za-z0-9_-]{1,255}"


@pytest.mark.parametrize("lab", LABS)
def test_resource_names_fit_every_service(lab: str) -> None:
    """should fit ECS, IAM with its longest suffix, and the shortest limit of the services used"""
    names.check_lab_name(lab)
    name = names.resource_name(lab)
    assert re.fullmatch(CLUSTER, name)
    for suffix in ("-task", "-execution"):
        assert re.fullmatch(ROLE, name + suffix)
    assert not name.startswith("sg-")
    for secret in (names.key_secret(lab), names.tls_secret(lab)):
        assert re.fullmatch(r"[A-Za-z0-9/_+=.@-]{1,512}", secret)
    # A host name's parts have at most 63 characters.
    assert re.fullmatch(r"(?!-)[a-z0-9-]{1,63}(?<!-)\.internal", names.tls_name(lab))
    assert re.fullmatch(r"[A-Za-z0-9_/.#-]{1,512}", names.log_group(lab))


@pytest.mark.parametrize("lab", LABS)
def test_a_secrets_name_has_no_random_looking_end(lab: str) -> None:
    """should not end in a dash and six characters, which AWS advises against"""
    for secret in (names.key_secret(lab), names.tls_secret(lab)):
        assert not re.search(r"-[A-Za-z0-9]{6}$", secret)


@pytest.mark.parametrize("what", ["endpoint", "models", "stages", "progress"])
@pytest.mark.parametrize("lab", LABS)
def test_artifact_keys_are_valid_for_prefect(lab: str, what: str) -> None:
    """should have only lower case, digits and dashes"""
    assert re.fullmatch(r"[a-z0-9-]+", names.artifact_key(lab, what))


def test_labs_do_not_share_names() -> None:
    """should keep two labs apart, even if one's name begins with the other's"""
    for name in (
        names.resource_name,
        names.lab_prefix,
        names.lab_state_key,
        names.lab_record_key,
        names.key_secret,
        names.tls_secret,
        names.tls_name,
        names.log_group,
    ):
        assert name("demo") != name("demo-2")
    assert not names.lab_state_key("demo-2").startswith(names.lab_prefix("demo"))
    assert names.lab_state_key("demo").startswith(names.lab_prefix("demo"))
    assert names.lab_record_key("demo").startswith(names.lab_prefix("demo"))


@pytest.mark.parametrize(
    "region", ["us-east-1", "ap-southeast-1", "us-isob-east-1", "mx-central-1"]
)
def test_state_bucket_is_a_bucket_name(region: str) -> None:
    """should have at most S3's 63 characters in the longest region"""
    bucket = names.state_bucket("123456789012", region)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", bucket)
    assert "123456789012" in bucket
    assert region in bucket


def test_repository_is_a_repository_name() -> None:
    """should be valid for ECR"""
    assert re.fullmatch(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", names.repository_name())
    assert 2 <= len(names.repository_name()) <= 256


@pytest.mark.parametrize("lab", ["a" * 21, "demo-", "demo\n", "Demo", ""])
def test_refuses_a_name_that_would_not_fit(lab: str) -> None:
    """should say what is allowed"""
    with pytest.raises(InvalidInputError, match="lower-case letters"):
        names.check_lab_name(lab)
