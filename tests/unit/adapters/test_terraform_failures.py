"""What a failure of Terraform means: its message, whether it may pass, and whose lock it was."""

from __future__ import annotations

import shutil
import socket
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from adapters.terraform import PermanentTerraformError, TransientTerraformError
from lab.durations import now
from lab.errors import InterruptedWorkError, is_transient
from tests.unit.adapters.fake_terraform import LONG, Make, StandIn, diagnostic


def test_a_refused_destroy_is_not_tried_again(make_root: Make, stand_in: StandIn) -> None:
    """should name the missing permission at once"""
    said = "User: arn:aws:iam::1:user/me is not authorized to perform: ec2:DeleteVpc on resource: *"
    stand_in.does("destroy", 1, diagnostic("deleting the VPC", said))
    with pytest.raises(PermanentTerraformError, match="ec2:DeleteVpc"):
        make_root().down({})
    assert len(stand_in.calls("destroy")) == 1


def locked(who: str, created: datetime) -> str:
    """Terraform's diagnostic for a held lock."""
    return diagnostic(
        "Error acquiring the state lock",
        "Error message: PreconditionFailed\nLock Info:\n"
        "  ID:        30097db1-0442-b3f2-3659-2b5a\n"
        "  Path:      state/labs/demo/terraform.tfstate\n"
        "  Operation: OperationTypeApply\n"
        f"  Who:       {who}\n"
        "  Version:   1.11.4\n"
        f"  Created:   {created:%Y-%m-%d %H:%M:%S}.123456789 +0000 UTC\n"
        "  Info:      \n",
    )


HERE = f"root@{socket.gethostname()}"


@pytest.mark.parametrize("verb", ["apply", "destroy"])
@pytest.mark.parametrize(
    ("who", "age"), [(HERE, timedelta()), ("root@elsewhere", 2 * LONG + timedelta(seconds=5))]
)
def test_a_lock_of_a_dead_run_is_broken(
    make_root: Make, stand_in: StandIn, verb: str, who: str, age: timedelta
) -> None:
    """should break it by its ID, name its owner, and go on"""
    stand_in.does(verb, 1, locked(who, now() - age))
    root = make_root()
    (root.up if verb == "apply" else root.down)({})
    (call,) = stand_in.calls("force-unlock")
    assert call["argv"] == ["force-unlock", "-force", "30097db1-0442-b3f2-3659-2b5a"]
    assert len(stand_in.calls(verb)) == 2
    assert any("breaking the state's lock: apply by root@" in said for said in stand_in.log)


def test_a_lock_of_another_machine_is_left_alone(make_root: Make, stand_in: StandIn) -> None:
    """should wait for it, and fail with a transient error"""
    stand_in.does("apply", 1, locked("root@elsewhere", now() - LONG))
    with pytest.raises(TransientTerraformError, match="acquiring the state lock"):
        make_root().up({})
    assert stand_in.calls("force-unlock") == []


@pytest.mark.parametrize("data", ["data", None, "other"])
def test_a_terraform_that_works_on_the_state_keeps_its_lock(
    make_root: Make, stand_in: StandIn, tmp_path: Path, data: str | None
) -> None:
    """should keep the lock of our other run and of a person's, not of another lab's run"""
    stand_in.does("apply", 1, locked(HERE, now()))
    program = tmp_path / "terraform"
    shutil.copy(str(shutil.which("sleep")), program)
    env = {"TF_DATA_DIR": str(tmp_path / data)} if data else {}
    with subprocess.Popen([program, "60"], env=env) as works:
        try:
            if data == "other":
                make_root().up({})
            else:
                with pytest.raises(TransientTerraformError, match="acquiring the state lock"):
                    make_root().up({})
        finally:
            works.kill()
    assert len(stand_in.calls("force-unlock")) == (1 if data == "other" else 0)


def test_the_error_has_terraforms_own_words(make_root: Make, stand_in: StandIn) -> None:
    """should have each diagnostic with its resource, and no warning"""
    stand_in.does(
        "apply",
        1,
        diagnostic("Deprecated", severity="warning"),
        diagnostic("creating VPC", "VpcLimitExceeded: five is all", address="aws_vpc.this"),
        diagnostic("Invalid value"),
    )
    with pytest.raises(PermanentTerraformError) as caught:
        make_root().up({})
    assert caught.value.message == (
        "terraform apply failed: aws_vpc.this: creating VPC: VpcLimitExceeded: five is all\n"
        "Invalid value"
    )
    assert caught.value.hint
    assert not is_transient(caught.value)


LOCKED = (
    "Error acquiring the state lock",
    "Error message: operation error S3: PutObject, StatusCode: 412, PreconditionFailed. Lock Info:",
)


@pytest.mark.parametrize(
    ("summary", "detail"),
    [
        LOCKED,
        ("creating ECS Cluster", "ThrottlingException: Rate exceeded"),
        ("reading VPC", "RequestLimitExceeded: Request limit exceeded."),
        ("reading role", "StatusCode: 503, ServiceUnavailable"),
        ("reading role", 'Post "https://iam/": dial tcp: lookup iam: no such host'),
        ("reading role", "read tcp 10.0.0.1: connection reset by peer"),
        ("reading role", "net/http: TLS handshake timeout"),
        ("deleting EC2 VPC", "DependencyViolation: has dependencies and cannot be deleted"),
        ("creating bucket", "OperationAborted: A conflicting operation is in progress"),
    ],
)
def test_a_passing_failure_is_transient(
    make_root: Make, stand_in: StandIn, summary: str, detail: str
) -> None:
    """should be tried again"""
    stand_in.does("apply", 1, diagnostic(summary, detail))
    with pytest.raises(TransientTerraformError) as caught:
        make_root().up({})
    assert is_transient(caught.value)


@pytest.mark.parametrize(
    ("summary", "detail"),
    [
        ("Invalid value for variable", "cpu 3 is not a Fargate size"),
        ("creating role", "AccessDenied: not authorized to perform: iam:CreateRole"),
        ("No valid credential sources found", "ExpiredToken: The security token is expired"),
        ("Unsupported argument", 'An argument named "enable" is not expected here.'),
        ("creating VPC", "VpcLimitExceeded: The maximum number of VPCs has been reached."),
    ],
)
def test_a_lasting_failure_is_permanent(
    make_root: Make, stand_in: StandIn, summary: str, detail: str
) -> None:
    """should not be tried again"""
    stand_in.does("apply", 1, diagnostic(summary, detail))
    with pytest.raises(PermanentTerraformError):
        make_root().up({})


def test_an_error_without_diagnostics_shows_stderr(make_root: Make, stand_in: StandIn) -> None:
    """should show the available text, such as a crash"""
    stand_in.does("apply", 11, stderr="panic: runtime error")
    with pytest.raises(PermanentTerraformError, match="panic: runtime error"):
        make_root().up({})


def test_an_interrupted_terraform_is_no_error(make_root: Make, stand_in: StandIn) -> None:
    """should not be taken for an error, and not be tried again"""
    stand_in.does("apply", 1, diagnostic("execution halted"), diagnostic("operation canceled"))
    with pytest.raises(InterruptedWorkError) as caught:
        make_root().up({})
    assert not is_transient(caught.value)
