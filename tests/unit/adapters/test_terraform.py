"""How Terraform is run: against a stand-in that speaks its JSON lines and keeps its calls."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters import terraform
from adapters.process import interrupt_children, interruptible
from adapters.terraform import (
    PermanentTerraformError,
    TerraformError,
    TerraformRoot,
    TransientTerraformError,
    cli_environment,
    terraform_version,
)
from lab.durations import now
from lab.errors import DeadlineError, InterruptedWorkError, PermanentError, is_transient

LONG = timedelta(seconds=30)
SECRET_PEM = "-----BEGIN CANARY-----\nof two lines\n"
SECRET = "wJalrXUtnFEMI-not-a-real-key"  # pragma: allowlist secret: made up

STAND_IN = """#!{python} -S
import json, os, pathlib, signal, sys, time
here = pathlib.Path({folder!r})
verb = sys.argv[1]
told = {{"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "variables": None}}
for argument in sys.argv:
    if argument.startswith("-var-file="):
        path = pathlib.Path(argument.partition("=")[2])
        told["variables"], told["path"] = json.loads(path.read_text()), str(path)
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(told) + "\\n")
if verb == "version":
    print((here / "version").read_text())
    sys.exit()
if verb == "force-unlock":
    for held in "apply", "destroy":
        (here / held).unlink(missing_ok=True)
script = here / verb
if script.exists():
    code, _, lines = script.read_text().partition("\\n")
    lines, _, err = lines.partition("STDERR")
    if code == "wait":
        def leave(*_):
            print(lines, flush=True)
            sys.exit(1)
        signal.signal(signal.SIGINT, leave)
        print(json.dumps({{"@message": "waiting", "type": "apply_start"}}), flush=True)
        while True:
            time.sleep(0.02)
    print(lines)
    print(err, file=sys.stderr)
    sys.exit(int(code))
"""


def line(kind: str, message: str, **more: Any) -> str:
    """One line as `terraform -json` writes it."""
    head = {"@level": "info", "@message": message, "@module": "terraform.ui"}
    return json.dumps({**head, "@timestamp": "2030-01-31T12:00:00Z", "type": kind, **more})


def diagnostic(summary: str, detail: str = "", severity: str = "error", **more: Any) -> str:
    found = {"severity": severity, "summary": summary, "detail": detail, **more}
    return line("diagnostic", f"Error: {summary}", diagnostic=found)


OUTPUTS = line(
    "outputs",
    "Outputs: 2",
    outputs={
        "cluster_name": {"sensitive": False, "type": "string", "value": "gateway-lab-demo"},
        "subnets": {"sensitive": False, "type": ["list", "string"], "value": ["a", "b"]},
    },
)


class StandIn:
    """A `terraform` on PATH that does what a test says and remembers how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[str] = []
        folder.mkdir()
        program = folder / "terraform"
        program.write_text(STAND_IN.format(python=sys.executable, folder=str(folder)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.answers_version('{"terraform_version": "1.11.4"}')

    def answers_version(self, text: str) -> None:
        (self.folder / "version").write_text(text)

    def does(self, verb: str, code: int | str, *lines: str, stderr: str = "") -> None:
        (self.folder / verb).write_text("\n".join([str(code), *lines, ""]) + "STDERR" + stderr)

    def calls(self, verb: str) -> list[dict[str, Any]]:
        path = self.folder / "calls"
        every = (
            [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
        )
        return [call for call in every if call["argv"][0] == verb]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(terraform, "_MIRROR_ROOTS", (str(tmp_path / "no-mirror"),))
    return made


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / ".terraform.lock.hcl").write_text("# locked")
    return folder


Make = Callable[..., TerraformRoot]


@pytest.fixture
def make(tmp_path: Path, stand_in: StandIn, module: Path) -> Make:
    def root(**changes: Any) -> TerraformRoot:
        options: dict[str, Any] = {
            "module": module,
            "data": tmp_path / "data",
            "backend": {"bucket": "state", "key": "labs/demo/terraform.tfstate"},
            "home": tmp_path / "home",
            "environment": {"AWS_REGION": "us-east-1", "AWS_SECRET_ACCESS_KEY": SECRET},
            "deadline": LONG,
            "log": stand_in.log.append,
        }
        return TerraformRoot(**(options | changes))

    return root


def test_up_returns_the_outputs(make: Make, stand_in: StandIn) -> None:
    """should give each output's value, of whatever type"""
    stand_in.does("apply", 0, line("version", "Terraform 1.11.4"), "not json", "[]", OUTPUTS)
    assert make().up({}) == {"cluster_name": "gateway-lab-demo", "subnets": ["a", "b"]}


def test_up_of_some_resources_targets_these_alone(make: Make, stand_in: StandIn) -> None:
    """should leave all others as they are, and target nothing where nothing is named"""
    root = make()
    root.up({})
    root.up({}, only=["aws_vpc.this", "aws_subnet.public"])
    every, some = (
        [word for word in call["argv"] if "target" in word] for call in stand_in.calls("apply")
    )
    assert every == []
    assert some == ["-target=aws_vpc.this", "-target=aws_subnet.public"]


def test_outputs_are_those_of_this_apply(make: Make, stand_in: StandIn) -> None:
    """should not return what an earlier apply said"""
    root = make()
    stand_in.does("apply", 0, OUTPUTS)
    root.up({})
    stand_in.does("apply", 0)
    assert root.up({}) == {}


def test_the_log_hears_what_happens(make: Make, stand_in: StandIn) -> None:
    """should tell of resources, warnings and stderr, not of every line nor of what was meant"""
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
    make().up({})
    assert sorted(stand_in.log) == [
        "terraform warning: Deprecated: Use another.",
        "terraform: Apply complete!",
        "terraform: aws_vpc.this: Creating...",
        "terraform: something odd",
    ]


@pytest.mark.parametrize("verb", ["apply", "destroy"])
def test_variables_go_through_a_file_that_is_gone_afterwards(
    make: Make, stand_in: StandIn, verb: str
) -> None:
    """should pass values of every type, leave no file, and put none of them into the arguments"""
    variables = {"lab": "demo-lab", "cidrs": ["8.8.4.4/32"], "models": {"one": {"id": None}}}
    root = make()
    (root.up if verb == "apply" else root.down)(variables)
    (call,) = stand_in.calls(verb)
    assert call["variables"] == variables
    assert not Path(call["path"]).exists()
    assert "demo-lab" not in " ".join(call["argv"])


def test_the_variables_file_is_gone_after_a_failure(make: Make, stand_in: StandIn) -> None:
    """should not leave values behind where Terraform failed"""
    stand_in.does("apply", 1, diagnostic("no"))
    with pytest.raises(TerraformError):
        make().up({"lab": "demo"})
    (call,) = stand_in.calls("apply")
    assert not Path(call["path"]).exists()


@pytest.mark.parametrize("verb", ["apply", "destroy"])
def test_runs_unattended_in_its_module(
    make: Make, stand_in: StandIn, module: Path, verb: str
) -> None:
    """should ask nobody, wait for a held lock for a bounded time, and speak JSON"""
    root = make()
    (root.up if verb == "apply" else root.down)({})
    (call,) = stand_in.calls(verb)
    assert {"-auto-approve", "-input=false", "-json", "-lock-timeout=10s"} <= set(call["argv"])
    assert Path(call["cwd"]) == module
    assert call["env"]["TF_IN_AUTOMATION"] == "1"


def test_no_credentials_in_any_argument(make: Make, stand_in: StandIn) -> None:
    """should pass credentials by environment only"""
    make().up({})
    for verb in ("init", "apply"):
        (call,) = stand_in.calls(verb)
        assert SECRET not in json.dumps(call["argv"])
        assert call["env"]["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert SECRET not in "".join(stand_in.log)


def test_a_secret_reaches_one_apply_and_nothing_else(make: Make, stand_in: StandIn) -> None:
    """should pass it by environment: no argument, file, log or later command has it"""
    root = make()
    root.up({"lab": "demo"}, secrets={"tls_pem": SECRET_PEM})
    root.up({"lab": "demo"})
    root.down({"lab": "demo"})
    first, second = stand_in.calls("apply")
    assert first["env"]["TF_VAR_tls_pem"] == SECRET_PEM
    assert first["variables"] == {"lab": "demo"}
    for call in (*stand_in.calls("init"), second, *stand_in.calls("destroy")):
        assert "TF_VAR_tls_pem" not in call["env"]
    assert "CANARY" not in json.dumps([first["argv"], first["variables"], stand_in.log])


def test_a_secret_is_forgotten_after_a_failure(make: Make, stand_in: StandIn) -> None:
    """should not be handed to the next command, nor stand in the error"""
    root = make()
    stand_in.does("apply", 1, diagnostic("no"))
    with pytest.raises(TerraformError) as caught:
        root.up({}, secrets={"tls_pem": SECRET_PEM})
    assert "CANARY" not in str(caught.value)
    root.down({})
    assert "TF_VAR_tls_pem" not in stand_in.calls("destroy")[0]["env"]


def test_our_environment_does_not_change_its_meaning(
    make: Make, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """should drop what people set for Terraform by hand, and what is only ours"""
    dropped = ("TF_VAR_lab", "TF_CLI_ARGS_apply", "TF_WORKSPACE", "LAB_HOME", "PREFECT_API_KEY")
    for name in (*dropped, "TF_DATA_DIR", "TF_CLI_CONFIG_FILE"):
        monkeypatch.setenv(name, "from outside")
    monkeypatch.setenv("SSL_CERT_FILE", "/kept")
    make().up({})
    env = stand_in.calls("apply")[0]["env"]
    assert not set(dropped) & set(env)
    assert "from outside" not in env.values()
    assert env["SSL_CERT_FILE"] == "/kept"
    assert env["TF_DATA_DIR"] == str(tmp_path / "data")


def test_initialises_once(make: Make, stand_in: StandIn) -> None:
    """should not pay for an init again, in this process or the next"""
    root = make()
    root.up({})
    root.down({})
    make().up({})
    (call,) = stand_in.calls("init")
    assert "-backend-config=bucket=state" in call["argv"]
    assert {"-reconfigure", "-lockfile=readonly"} <= set(call["argv"])


def test_a_destroy_reads_what_is_there_only_where_it_must(make: Make, stand_in: StandIn) -> None:
    """should take the state for true, and read everything where that was not enough"""
    make().down({})
    stand_in.does("destroy", 1, diagnostic("something else is still in it"))
    with pytest.raises(PermanentTerraformError, match="still in it"):
        make().down({})
    reads = ["-refresh=false" not in call["argv"] for call in stand_in.calls("destroy")]
    assert reads == [False, False, True]


def test_a_refused_destroy_is_not_tried_again(make: Make, stand_in: StandIn) -> None:
    """should name the right that is missing at once"""
    said = "User: arn:aws:iam::1:user/me is not authorized to perform: ec2:DeleteVpc on resource: *"
    stand_in.does("destroy", 1, diagnostic("deleting the VPC", said))
    with pytest.raises(PermanentTerraformError, match="ec2:DeleteVpc"):
        make().down({})
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
def test_a_lock_that_a_dead_run_left_is_broken(
    make: Make, stand_in: StandIn, verb: str, who: str, age: timedelta
) -> None:
    """should break it by its ID, say whose it was, and go on"""
    stand_in.does(verb, 1, locked(who, now() - age))
    root = make()
    (root.up if verb == "apply" else root.down)({})
    (call,) = stand_in.calls("force-unlock")
    assert call["argv"] == ["force-unlock", "-force", "30097db1-0442-b3f2-3659-2b5a"]
    assert len(stand_in.calls(verb)) == 2
    assert any("breaking the state's lock: apply by root@" in said for said in stand_in.log)


def test_a_lock_of_another_machine_is_left_alone(make: Make, stand_in: StandIn) -> None:
    """should wait for it, and fail with what may pass"""
    stand_in.does("apply", 1, locked("root@elsewhere", now() - LONG))
    with pytest.raises(TransientTerraformError, match="acquiring the state lock"):
        make().up({})
    assert stand_in.calls("force-unlock") == []


@pytest.mark.parametrize("data", ["data", None, "other"])
def test_a_terraform_that_works_on_the_state_keeps_its_lock(
    make: Make, stand_in: StandIn, tmp_path: Path, data: str | None
) -> None:
    """should spare the lock of our other run and of a person's, not of another lab's run"""
    stand_in.does("apply", 1, locked(HERE, now()))
    program = tmp_path / "terraform"
    shutil.copy(str(shutil.which("sleep")), program)
    env = {"TF_DATA_DIR": str(tmp_path / data)} if data else {}
    with subprocess.Popen([program, "60"], env=env) as works:
        try:
            if data == "other":
                make().up({})
            else:
                with pytest.raises(TransientTerraformError, match="acquiring the state lock"):
                    make().up({})
        finally:
            works.kill()
    assert len(stand_in.calls("force-unlock")) == (1 if data == "other" else 0)


@pytest.mark.parametrize("changed", ["backend", "lock", "data", "module"])
def test_initialises_again_for_something_else(
    make: Make, stand_in: StandIn, module: Path, tmp_path: Path, changed: str
) -> None:
    """should not work in another state, or with other providers, than it was asked to"""
    make().up({})
    changes: dict[str, Any] = {}
    if changed == "backend":
        changes["backend"] = {"bucket": "state", "key": "labs/other/terraform.tfstate"}
    elif changed == "lock":
        (module / ".terraform.lock.hcl").write_text("# other providers")
    elif changed == "data":
        changes["data"] = tmp_path / "elsewhere"
    else:
        changes["module"] = module.rename(tmp_path / "moved")
    make(**changes).up({})
    assert len(stand_in.calls("init")) == 2


def test_a_failed_init_is_done_again(make: Make, stand_in: StandIn) -> None:
    """should not take a failed init for one that was done, nor apply after it"""
    stand_in.does("init", 1, diagnostic("Failed to query available provider packages"))
    root = make()
    with pytest.raises(TerraformError, match="terraform init failed"):
        root.up({})
    assert stand_in.calls("apply") == []
    stand_in.does("init", 0)
    root.up({})
    assert len(stand_in.calls("init")) == 2


def test_the_error_is_terraforms_own_words(make: Make, stand_in: StandIn) -> None:
    """should hold each diagnostic with its resource, and no warning"""
    stand_in.does(
        "apply",
        1,
        diagnostic("Deprecated", severity="warning"),
        diagnostic("creating VPC", "VpcLimitExceeded: five is all", address="aws_vpc.this"),
        diagnostic("Invalid value"),
    )
    with pytest.raises(PermanentTerraformError) as caught:
        make().up({})
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
def test_what_passes_is_transient(make: Make, stand_in: StandIn, summary: str, detail: str) -> None:
    """should be tried again"""
    stand_in.does("apply", 1, diagnostic(summary, detail))
    with pytest.raises(TransientTerraformError) as caught:
        make().up({})
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
def test_what_stays_is_permanent(make: Make, stand_in: StandIn, summary: str, detail: str) -> None:
    """should not be tried again"""
    stand_in.does("apply", 1, diagnostic(summary, detail))
    with pytest.raises(PermanentTerraformError):
        make().up({})


def test_an_error_without_diagnostics_is_told_by_stderr(make: Make, stand_in: StandIn) -> None:
    """should show what there is, such as a crash"""
    stand_in.does("apply", 11, stderr="panic: runtime error")
    with pytest.raises(PermanentTerraformError, match="panic: runtime error"):
        make().up({})


def test_interrupted_terraform_is_no_failure_of_its_own(make: Make, stand_in: StandIn) -> None:
    """should be told apart from an error, and not be tried again"""
    stand_in.does("apply", 1, diagnostic("execution halted"), diagnostic("operation canceled"))
    with pytest.raises(InterruptedWorkError) as caught:
        make().up({})
    assert not is_transient(caught.value)


def test_an_interruption_lets_it_end_by_itself(
    tmp_path: Path, make: Make, stand_in: StandIn
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
        run = pool.submit(make(log=log).up, {"lab": "demo"})
        with pytest.raises(InterruptedWorkError):
            run.result(timeout=30)
    with interruptible():
        pass
    assert began
    assert "terraform: lock released" in stand_in.log
    assert not Path(stand_in.calls("apply")[0]["path"]).exists()


def test_a_deadline_ends_it(make: Make, stand_in: StandIn) -> None:
    """should not wait for a hanging Terraform for ever"""
    stand_in.does("destroy", "wait", "")
    make().up({})
    with pytest.raises(DeadlineError, match="terraform did not end"):
        make(deadline=timedelta(seconds=0.5)).down({})


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('{"terraform_version": "1.11.0"}', (1, 11, 0)),
        ('{"terraform_version": "1.12.3-beta1", "platform": "linux_amd64"}', (1, 12, 3)),
        ('{"terraform_version": "2.0.0"}', (2, 0, 0)),
    ],
)
def test_takes_a_version_that_is_new_enough(
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
        ('{"terraform_version": "latest"}', "did not tell its version"),
        ('{"terraform_version": null}', "did not tell its version"),
        ('{"version": "1.11.4"}', "did not tell its version"),
        ("Terraform v1.11.4", "did not tell its version"),
        ("[]", "did not tell its version"),
        ("", "did not tell its version"),
    ],
)
def test_refuses_an_old_or_unknown_version(stand_in: StandIn, text: str, why: str) -> None:
    """should say what it found and which version to install"""
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
def test_finds_a_provider_that_the_machine_carries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: str
) -> None:
    """should point Terraform at the mirror for this provider, and only for it"""
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
