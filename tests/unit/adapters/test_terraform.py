"""How Terraform runs: with which variables, secrets, backend and environment, and how it ends."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.process import interrupt_children, interruptible
from adapters.terraform import PermanentTerraformError, TerraformError
from lab.errors import DeadlineError, InterruptedWorkError
from tests.unit.adapters.fake_terraform import OUTPUTS, SECRET, Make, StandIn, diagnostic, line

SECRET_PEM = "-----BEGIN CANARY-----\nof two lines\n"


def test_up_returns_the_outputs(make_root: Make, stand_in: StandIn) -> None:
    """should return each output's value, of whatever type"""
    stand_in.does("apply", 0, line("version", "Terraform 1.11.4"), "not json", "[]", OUTPUTS)
    assert make_root().up({}) == {"cluster_name": "gateway-lab-demo", "subnets": ["a", "b"]}


def test_up_of_some_resources_targets_only_these(make_root: Make, stand_in: StandIn) -> None:
    """should leave all other resources, and target nothing if none is named"""
    root = make_root()
    root.up({})
    root.up({}, only=["aws_vpc.this", "aws_subnet.public"])
    every, some = (
        [word for word in call["argv"] if "target" in word] for call in stand_in.calls("apply")
    )
    assert every == []
    assert some == ["-target=aws_vpc.this", "-target=aws_subnet.public"]


def test_outputs_are_those_of_this_apply(make_root: Make, stand_in: StandIn) -> None:
    """should not return the outputs of an earlier apply"""
    root = make_root()
    stand_in.does("apply", 0, OUTPUTS)
    root.up({})
    stand_in.does("apply", 0)
    assert root.up({}) == {}


def test_the_log_names_the_changes(make_root: Make, stand_in: StandIn) -> None:
    """should log resources, warnings and stderr, but not every line and no planned change"""
    stand_in.does(
        "apply",
        0,
        line("refresh_start", "aws_vpc.this: Refreshing state..."),
        line("apply_start", "aws_vpc.this: Creating..."),
        diagnostic("Deprecated", "Use another.", severity="warning"),
        diagnostic("Applied changes may be incomplete", "Look.", severity="warning"),
        line("change_summary", "Apply complete!"),
        stderr="something odd",
    )
    make_root().up({})
    assert sorted(stand_in.log) == [
        "terraform warning: Deprecated: Use another.",
        "terraform: Apply complete!",
        "terraform: aws_vpc.this: Creating...",
        "terraform: something odd",
    ]


@pytest.mark.parametrize("verb", ["apply", "destroy"])
def test_variables_are_passed_in_a_temporary_file(
    make_root: Make, stand_in: StandIn, verb: str
) -> None:
    """should pass values of every type, leave no file, and put none of them into the arguments"""
    variables = {"lab": "demo-lab", "cidrs": ["8.8.4.4/32"], "models": {"one": {"id": None}}}
    root = make_root()
    (root.up if verb == "apply" else root.down)(variables)
    (call,) = stand_in.calls(verb)
    assert call["variables"] == variables
    assert not Path(call["path"]).exists()
    assert "demo-lab" not in " ".join(call["argv"])


def test_the_variables_file_is_gone_after_a_failure(make_root: Make, stand_in: StandIn) -> None:
    """should not leave values behind if Terraform failed"""
    stand_in.does("apply", 1, diagnostic("no"))
    with pytest.raises(TerraformError):
        make_root().up({"lab": "demo"})
    (call,) = stand_in.calls("apply")
    assert not Path(call["path"]).exists()


@pytest.mark.parametrize("verb", ["apply", "destroy"])
def test_runs_unattended_in_its_module(
    make_root: Make, stand_in: StandIn, root_module: Path, verb: str
) -> None:
    """should ask no question, wait only a limited time for a held lock, and write JSON"""
    root = make_root()
    (root.up if verb == "apply" else root.down)({})
    (call,) = stand_in.calls(verb)
    assert {"-auto-approve", "-input=false", "-json", "-lock-timeout=10s"} <= set(call["argv"])
    assert Path(call["cwd"]) == root_module
    assert call["env"]["TF_IN_AUTOMATION"] == "1"


def test_no_credentials_in_any_argument(make_root: Make, stand_in: StandIn) -> None:
    """should pass credentials only in the environment"""
    make_root().up({})
    for verb in ("init", "apply"):
        (call,) = stand_in.calls(verb)
        assert SECRET not in json.dumps(call["argv"])
        assert call["env"]["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert SECRET not in "".join(stand_in.log)


def test_a_secret_reaches_one_apply_and_nothing_else(make_root: Make, stand_in: StandIn) -> None:
    """should pass it in the environment: no argument, file, log or later command has it"""
    root = make_root()
    root.up({"lab": "demo"}, secrets={"tls_pem": SECRET_PEM})
    root.up({"lab": "demo"})
    root.down({"lab": "demo"})
    first, second = stand_in.calls("apply")
    assert first["env"]["TF_VAR_tls_pem"] == SECRET_PEM
    assert first["variables"] == {"lab": "demo"}
    for call in (*stand_in.calls("init"), second, *stand_in.calls("destroy")):
        assert "TF_VAR_tls_pem" not in call["env"]
    assert "CANARY" not in json.dumps([first["argv"], first["variables"], stand_in.log])


def test_a_secret_is_forgotten_after_a_failure(make_root: Make, stand_in: StandIn) -> None:
    """should not pass it to the next command, nor show it in the error"""
    root = make_root()
    stand_in.does("apply", 1, diagnostic("no"))
    with pytest.raises(TerraformError) as caught:
        root.up({}, secrets={"tls_pem": SECRET_PEM})
    assert "CANARY" not in str(caught.value)
    root.down({})
    assert "TF_VAR_tls_pem" not in stand_in.calls("destroy")[0]["env"]


def test_our_environment_does_not_change_its_behaviour(
    make_root: Make, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """should drop variables that people set for Terraform by hand, and our own variables"""
    dropped = ("TF_VAR_lab", "TF_CLI_ARGS_apply", "TF_WORKSPACE", "LAB_HOME", "PREFECT_API_KEY")
    for name in (*dropped, "TF_DATA_DIR", "TF_CLI_CONFIG_FILE"):
        monkeypatch.setenv(name, "from outside")
    monkeypatch.setenv("SSL_CERT_FILE", "/kept")
    make_root().up({})
    env = stand_in.calls("apply")[0]["env"]
    assert not set(dropped) & set(env)
    assert "from outside" not in env.values()
    assert env["SSL_CERT_FILE"] == "/kept"
    assert env["TF_DATA_DIR"] == str(tmp_path / "data")


def test_initialises_once(make_root: Make, stand_in: StandIn) -> None:
    """should not run init again, in this process or the next"""
    root = make_root()
    root.up({})
    root.down({})
    make_root().up({})
    (call,) = stand_in.calls("init")
    assert "-backend-config=bucket=state" in call["argv"]
    assert {"-reconfigure", "-lockfile=readonly"} <= set(call["argv"])


def test_a_destroy_refreshes_only_if_it_must(make_root: Make, stand_in: StandIn) -> None:
    """should trust the state, and refresh it only if that was not enough"""
    make_root().down({})
    stand_in.does("destroy", 1, diagnostic("something else is still in it"))
    with pytest.raises(PermanentTerraformError, match="still in it"):
        make_root().down({})
    reads = ["-refresh=false" not in call["argv"] for call in stand_in.calls("destroy")]
    assert reads == [False, False, True]


@pytest.mark.parametrize("changed", ["backend", "lock", "data", "module"])
def test_initialises_again_for_something_else(
    make_root: Make, stand_in: StandIn, root_module: Path, tmp_path: Path, changed: str
) -> None:
    """should not work with another state or other providers than the given ones"""
    make_root().up({})
    changes: dict[str, Any] = {}
    if changed == "backend":
        changes["backend"] = {"bucket": "state", "key": "labs/other/terraform.tfstate"}
    elif changed == "lock":
        (root_module / ".terraform.lock.hcl").write_text("# other providers")
    elif changed == "data":
        changes["data"] = tmp_path / "elsewhere"
    else:
        changes["module"] = root_module.rename(tmp_path / "moved")
    make_root(**changes).up({})
    assert len(stand_in.calls("init")) == 2


def test_a_failed_init_is_done_again(make_root: Make, stand_in: StandIn) -> None:
    """should not take a failed init for a completed one, nor apply after it"""
    stand_in.does("init", 1, diagnostic("Failed to query available provider packages"))
    root = make_root()
    with pytest.raises(TerraformError, match="terraform init failed"):
        root.up({})
    assert stand_in.calls("apply") == []
    stand_in.does("init", 0)
    root.up({})
    assert len(stand_in.calls("init")) == 2


def test_an_interruption_lets_it_end_by_itself(
    tmp_path: Path, make_root: Make, stand_in: StandIn
) -> None:
    """should signal it, let it release its lock, and clean up after it"""
    stand_in.does("apply", "wait", line("change_summary", "lock released"))
    began = []

    def log(text: str) -> None:
        stand_in.log.append(text)
        if text == "terraform: waiting":
            began.append(text)
            interrupt_children()

    with interruptible(), ThreadPoolExecutor() as pool:
        run = pool.submit(make_root(log=log).up, {"lab": "demo"})
        with pytest.raises(InterruptedWorkError):
            run.result(timeout=30)
    with interruptible():
        pass
    assert began
    assert "terraform: lock released" in stand_in.log
    assert not Path(stand_in.calls("apply")[0]["path"]).exists()


def test_a_deadline_ends_it(make_root: Make, stand_in: StandIn) -> None:
    """should not wait forever for a hanging Terraform"""
    stand_in.does("destroy", "wait", "")
    make_root().up({})
    with pytest.raises(DeadlineError, match="terraform did not end"):
        make_root(deadline=timedelta(seconds=0.5)).down({})
