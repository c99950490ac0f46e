"""The place of labs comes from the environment, and each fault in it is reported by variable."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from lab.errors import InvalidInputError
from lab.fargate import Architecture
from lab.settings import ADDRESS_SOURCES, Settings, read_settings


def refusal(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> str:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInputError) as caught:
        read_settings()
    assert "variable" in caught.value.hint
    return caught.value.message


def test_defaults_suit_aws() -> None:
    """should need no settings on AWS: no dummy, no endpoint, no address of somebody else"""
    settings = read_settings()
    assert settings.target == "aws"
    assert settings.registry_host is None
    assert settings.deployer_address is None
    assert settings.container_environment == {}
    assert settings.subscribe is False
    assert settings.unlisted_models is False
    assert settings.address_sources == ADDRESS_SOURCES
    assert settings.architecture is Architecture.X86_64
    # No firewall is opened unless somebody requested it.
    assert settings.follow_address is False


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "us-gov-west-1", "ap-southeast-7"])
def test_accepts_the_form_of_a_region(monkeypatch: pytest.MonkeyPatch, region: str) -> None:
    """should have no list of regions here"""
    monkeypatch.setenv("LAB_REGION", region)
    assert read_settings().region == region


@pytest.mark.parametrize(
    "region", ["", "us-east", "us-east-1a", "US-EAST-1", "Frankfurt", "us_east_1", "us-east-1\n"]
)
def test_refuses_another_form_than_a_regions(monkeypatch: pytest.MonkeyPatch, region: str) -> None:
    """should name the variable, the value and an example"""
    said = refusal(monkeypatch, "LAB_REGION", region)
    assert "LAB_REGION" in said
    assert repr(region) in said
    assert "'us-east-1'" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAB_ARCHITECTURE", "sparc"),
        ("LAB_PUBLIC_BASE_IMAGE", "perhaps"),
        ("LAB_ROLLOUT_DEADLINE", "soon"),
        ("LAB_MODEL_NOTICE", "soon"),
        ("LAB_MODEL_NOTICE", "-P1D"),
        ("LAB_SUBSCRIPTION_DEADLINE", "-PT1S"),
        ("LAB_SUBSCRIBE", "maybe"),
        ("LAB_UNLISTED_MODELS", "maybe"),
        ("LAB_DEPLOYER_ADDRESS", "10.0.0.1"),
        ("LAB_DEPLOYER_ADDRESS", "0.0.0.0/0"),
        ("LAB_CONTAINER_ENVIRONMENT", "{"),
        ("LAB_CONTAINER_ENVIRONMENT", '["A"]'),
        ("LAB_CONTAINER_ENVIRONMENT", '{"A": 1}'),
    ],
)
def test_names_the_refused_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """should name the variable as people set it, and be an error of the project's, no traceback"""
    assert name in refusal(monkeypatch, name, value)


def test_reports_every_refused_variable_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """should not make people correct one variable per try"""
    monkeypatch.setenv("LAB_ARCHITECTURE", "sparc")
    said = refusal(monkeypatch, "LAB_REGION", "x")
    assert "LAB_ARCHITECTURE" in said
    assert "LAB_REGION" in said


def test_container_environment_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """should read the container's environment from one JSON object of texts"""
    monkeypatch.setenv("LAB_CONTAINER_ENVIRONMENT", '{"A": "1", "B": "x=y"}')
    assert read_settings().container_environment == {"A": "1", "B": "x=y"}


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("https://a.test", ("https://a.test",)),
        ("https://a.test,https://b.test", ("https://a.test", "https://b.test")),
        (" https://a.test , https://b.test, ", ("https://a.test", "https://b.test")),
    ],
)
def test_address_sources_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, text: str, sources: tuple[str, ...]
) -> None:
    """should split at commas; blanks and a final comma add no empty source"""
    monkeypatch.setenv("LAB_ADDRESS_SOURCES", text)
    assert read_settings().address_sources == sources


@pytest.mark.parametrize(("given", "read"), [("8.8.4.4", "8.8.4.4/32"), ("", None)])
def test_deployer_address_is_one_host_or_unset(
    monkeypatch: pytest.MonkeyPatch, given: str, read: str | None
) -> None:
    """should make a host from it; an empty variable means that the sources are asked"""
    monkeypatch.setenv("LAB_DEPLOYER_ADDRESS", given)
    assert read_settings().deployer_address == read


def test_reads_the_current_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """should not remember the environment at import or at an earlier call"""
    read_settings()
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_ROLLOUT_DEADLINE", "PT90S")
    assert read_settings().lab_home("demo") == tmp_path / "labs" / "demo"
    assert read_settings().rollout_deadline == timedelta(seconds=90)


def test_catalogue_is_the_projects_own() -> None:
    """should be a file that exists"""
    assert Settings().catalog_path.is_file()


@pytest.mark.parametrize("given", ["PT1M", "PT15M", "P1D", "00:20:00"])
def test_stop_grace_is_whole_minutes(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """should accept one minute to a day, in any spelling of a length of time"""
    monkeypatch.setenv("LAB_STOP_GRACE", given)
    grace = read_settings().stop_grace
    assert timedelta(minutes=1) <= grace <= timedelta(days=1)


@pytest.mark.parametrize("given", ["PT0S", "PT59S", "PT90S", "-PT5M", "PT24H1M", "PT60.5S", "soon"])
def test_refuses_a_grace_that_terraform_would_refuse(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """should say so before anything is made, and what is allowed"""
    said = refusal(monkeypatch, "LAB_STOP_GRACE", given)
    assert said.startswith("LAB_STOP_GRACE: ")
    if given != "soon":
        assert "is not a whole number of minutes from 1 to 1440" in said


@pytest.mark.parametrize(("given", "read"), [("[30, 5]", (30, 5)), ("[10]", (10,)), ("[]", ())])
def test_notices_are_json(
    monkeypatch: pytest.MonkeyPatch, given: str, read: tuple[int, ...]
) -> None:
    """should be minutes; an empty list is allowed"""
    monkeypatch.setenv("LAB_NOTICES", given)
    assert read_settings().notices == read


@pytest.mark.parametrize("given", ["30,5", '["soon"]', "30", "[1.5]"])
def test_refuses_notices_that_are_no_list_of_minutes(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """should name the variable, without a traceback"""
    assert "LAB_NOTICES" in refusal(monkeypatch, "LAB_NOTICES", given)


def test_longest_life_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """should be three days by default, and be refused by name"""
    assert read_settings().longest_life == timedelta(days=3)
    monkeypatch.setenv("LAB_LONGEST_LIFE", "PT12H")
    assert read_settings().longest_life == timedelta(hours=12)
    assert "LAB_LONGEST_LIFE" in refusal(monkeypatch, "LAB_LONGEST_LIFE", "long")


@pytest.mark.parametrize(("given", "name"), [("", None), ("gateway-lab-boundary",) * 2])
def test_a_role_boundary_is_a_policys_name(
    monkeypatch: pytest.MonkeyPatch, given: str, name: str | None
) -> None:
    """should be none if it is empty"""
    monkeypatch.setenv("LAB_ROLE_BOUNDARY", given)
    assert read_settings().role_boundary == name


def test_a_role_boundary_that_is_no_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """should accept no ARN: the account's ARN is made from the name"""
    said = refusal(monkeypatch, "LAB_ROLE_BOUNDARY", "arn:aws:iam::1:policy/x")
    assert said.startswith("LAB_ROLE_BOUNDARY: ")
