"""A refused command line changes nothing, says why once, and exits 2."""

from __future__ import annotations

import pytest

from lab.spec import LabSpec, OnRetired
from workstation import setup, up


@pytest.fixture(autouse=True)
def _nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object) -> None:
        pytest.fail("set-up began for a refused command line")

    monkeypatch.setattr(up, "set_up", touched)
    monkeypatch.setattr(up.prefect_api, "Api", touched)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "mars"], "unknown target 'mars'; allowed: aws, local"),
        (["--target", ""], "unknown target ''"),
        (["--models", "bedrock-llama,gpt-9"], "unknown model 'gpt-9'; the catalogue has: bedrock-"),
        (["--models", ""], "models is empty"),
        (["--models", ",,"], "models is empty"),
        (["--models", "bedrock-llama,bedrock-llama"], "bedrock-llama more than once"),
        (["--lab", "Demo"], "lab name 'Demo' is not allowed"),
        (["--lab", "demo-"], "lab name 'demo-' is not allowed"),
        (["--lab", "a" * 21], "is not allowed"),
        (["--lab", ""], "lab name '' is not allowed"),
        (["--lab", "[/red]"], "lab name '[/red]' is not allowed"),
        (["--lab", "[red]x"], "lab name '[red]x' is not allowed"),
        (["--ttl", "0m"], "ttl '0m' is out of bounds: allowed are 1m to 1d"),
        (["--ttl=-5m"], "'-5m' is not a length of time"),
        (["--ttl", "soon"], "'soon' is not a length of time"),
        (["--ttl", "25h"], "ttl '25h' is out of bounds"),
        (["--on-retired", "ignore"], "on_retired: Input should be 'fail', 'substitute' or 'skip'"),
    ],
)
def test_a_refused_value_is_reported_and_exits_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """should print one error that names the value, on stderr, and start nothing"""
    assert up.main(arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("✗") == 1
    assert "What to do: " in err
    assert "Traceback" not in err
    assert out == ""


def test_a_broken_variable_is_reported_and_exits_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """should refuse a malformed LAB_ variable in the same way"""
    monkeypatch.setenv("LAB_REGION", "nowhere")
    assert up.main([]) == 2
    assert "LAB_REGION" in capsys.readouterr().err


def test_another_system_than_linux_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """should say at once on which system this runs"""
    monkeypatch.setattr(setup.platform, "system", lambda: "Darwin")
    assert up.main([]) == 2
    assert "Linux only, not on Darwin" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--lap", "demo"], ["demo"], ["--lab"]])
def test_an_unknown_option_exits_2(arguments: list[str]) -> None:
    """should not ignore an unknown option"""
    with pytest.raises(SystemExit) as caught:
        up.main(arguments)
    assert caught.value.code == 2


def test_a_good_command_line_becomes_a_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    """should pass on exactly the given values, and return the result"""
    begun: list[tuple[LabSpec, str]] = []

    def bring_up(spec: LabSpec, target: str, _: object) -> int:
        begun.append((spec, target))
        return 1

    monkeypatch.setattr(up, "bring_up", bring_up)
    models = "bedrock-cohere,bedrock-llama"
    assert up.main(["--lab", "mine", "--ttl", "45m", "--models", models, "--target", "aws"]) == 1
    assert up.main([]) == 1
    assert up.main(["--on-retired", "substitute"]) == 1
    assert begun == [
        (LabSpec(lab="mine", ttl="45m", models=["bedrock-cohere", "bedrock-llama"]), "aws"),
        (LabSpec(lab="demo", ttl="2h"), "local"),
        (LabSpec(lab="demo", on_retired=OnRetired.SUBSTITUTE), "local"),
    ]


def test_ctrl_c_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """should end as a shell expects"""

    def bring_up(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(up, "bring_up", bring_up)
    assert up.main([]) == 130
