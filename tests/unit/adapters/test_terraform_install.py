"""Which Terraform the machine has, and where its provider comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters import terraform
from adapters.terraform import cli_environment, terraform_version
from lab.errors import PermanentError
from tests.unit.adapters.fake_terraform import StandIn


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('{"terraform_version": "1.11.0"}', (1, 11, 0)),
        ('{"terraform_version": "1.12.3-beta1", "platform": "linux_amd64"}', (1, 12, 3)),
        ('{"terraform_version": "2.0.0"}', (2, 0, 0)),
    ],
)
def test_accepts_a_version_that_is_new_enough(
    stand_in: StandIn, text: str, version: tuple[int, ...]
) -> None:
    """should compare numbers, not texts"""
    stand_in.answers_version(text)
    assert terraform_version() == version


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"terraform_version": "1.10.5"}', "1.10.5 is too old"),
        ('{"terraform_version": "1.9.9"}', "1.9.9 is too old"),
        ('{"terraform_version": "0.12.31"}', "0.12.31 is too old"),
        ('{"terraform_version": "1.11"}', "1.11 is too old"),
        ('{"terraform_version": "latest"}', "reported no version"),
        ('{"terraform_version": null}', "reported no version"),
        ('{"version": "1.11.4"}', "reported no version"),
        ("Terraform v1.11.4", "reported no version"),
        ("[]", "reported no version"),
        ("", "reported no version"),
    ],
)
def test_refuses_an_old_or_unknown_version(stand_in: StandIn, text: str, why: str) -> None:
    """should name the version that it found and the version to install"""
    stand_in.answers_version(text)
    with pytest.raises(PermanentError) as caught:
        terraform_version()
    assert why in caught.value.message
    assert "1.11.0 or newer" in caught.value.hint


def test_refuses_to_go_on_without_terraform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should say which version to install"""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PermanentError) as caught:
        terraform_version()
    assert "not on PATH" in caught.value.message
    assert "1.11.0 or newer" in caught.value.hint


@pytest.mark.parametrize("depth", ["", "one", "one/two"])
def test_finds_a_provider_on_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: str
) -> None:
    """should point Terraform to the mirror for this provider only"""
    mirror = tmp_path / "opt" / depth
    (mirror / terraform.PROVIDER).mkdir(parents=True)
    monkeypatch.setattr(terraform, "_MIRROR_ROOTS", (str(tmp_path / "no"), str(tmp_path / "opt")))
    environment = cli_environment(tmp_path / "home")
    text = Path(environment["TF_CLI_CONFIG_FILE"]).read_text()
    assert f'path    = "{mirror}"' in text
    assert 'include = ["hashicorp/aws"]' in text
    assert 'exclude = ["hashicorp/aws"]' in text


def test_works_without_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """should leave Terraform its registry"""
    monkeypatch.setattr(terraform, "_MIRROR_ROOTS", (str(tmp_path / "no"),))
    environment = cli_environment(tmp_path / "home")
    configuration = Path(environment["TF_CLI_CONFIG_FILE"])
    assert configuration.is_absolute()
    assert "provider_installation" not in configuration.read_text()
    assert [p.name for p in configuration.parent.iterdir()] == ["cli.tfrc"]
