"""Plans of the lab with the real provider, and that the code and Terraform agree.

Nothing here needs a cloud: the plan talks to a stand-in on the loopback that answers the four
questions a plan asks. Terraform's working directories are in ``tmp_path``, never in the tree.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3
import pytest

from adapters.aws.session import Cloud
from lab.fargate import TASK_SIZES
from lab.names import (
    GATEWAY_PORT,
    ROLES,
    STOP_SCHEDULE,
    key_secret,
    repository_name,
    resource_name,
    state_machine,
    tls_name,
    tls_secret,
)
from lab.place import Place
from lab.record import LabRecord
from lab.settings import Settings
from tasks import provision
from tasks.site import Site
from tests.terraform.command import DEADLINE, TERRAFORM, run

CANARY = "CanaryKeyThatMustNeverBeWrittenAnywhere123456789"  # pragma: allowlist secret: made up
PEM = "-----BEGIN PRIVATE KEY-----CanaryPem-----BEGIN CERTIFICATE-----"


class _Cloud(BaseHTTPRequestHandler):
    """Names the caller and the zones, checks a definition, makes the key.

    As S3 it has buckets without a state, which keep Terraform's lock.
    """

    def do_GET(self) -> None:
        key = self.path.partition("?")[0]
        if "list-type" in self.path:
            self._answer(200, "application/xml", "<ListBucketResult></ListBucketResult>")
        elif key in self.server.kept:  # type: ignore[attr-defined]
            self._answer(200, "application/json", self.server.kept[key])  # type: ignore[attr-defined]
        else:
            self._answer(404, "application/xml", "<Error><Code>NoSuchKey</Code></Error>")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        key = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append(f"PUT {key}")  # type: ignore[attr-defined]
        self.server.kept[key] = body  # type: ignore[attr-defined]
        self._answer(200, "application/xml", "")

    def do_DELETE(self) -> None:
        del self.server.kept[self.path.partition("?")[0]]  # type: ignore[attr-defined]
        self._answer(204, "application/xml", "")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        target = self.headers.get("X-Amz-Target", "")
        action = target.rpartition(".")[2] or parse_qs(body)["Action"][0]
        kind, answer = {
            "GetCallerIdentity": (
                "text/xml",
                "<GetCallerIdentityResponse><GetCallerIdentityResult>"
                "<Arn>arn:aws:iam::111122223333:user/test</Arn><UserId>test</UserId>"
                "<Account>111122223333</Account>"
                "</GetCallerIdentityResult></GetCallerIdentityResponse>",
            ),
            "DescribeAvailabilityZones": (
                "text/xml",
                "<DescribeAvailabilityZonesResponse><availabilityZoneInfo>"
                "<item><zoneName>eu-central-1a</zoneName><zoneId>euc1-az1</zoneId></item>"
                "<item><zoneName>eu-central-1b</zoneName><zoneId>euc1-az2</zoneId></item>"
                "</availabilityZoneInfo></DescribeAvailabilityZonesResponse>",
            ),
            "GetRandomPassword": (
                "application/x-amz-json-1.1",
                json.dumps({"RandomPassword": CANARY}),
            ),
            "ValidateStateMachineDefinition": (
                "application/x-amz-json-1.0",
                json.dumps({"result": "OK", "diagnostics": []}),
            ),
        }[action]
        self.server.asked.append(action)  # type: ignore[attr-defined]
        self._answer(200, kind, answer)

    def _answer(self, status: int, kind: str, answer: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: pytest shows Terraform's own words."""


@pytest.fixture
def cloud() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Cloud)
    server.asked, server.kept = [], {}  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cloud_env(terraform_env: dict[str, str], cloud: ThreadingHTTPServer) -> dict[str, str]:
    """Terraform's environment, its cloud the stand-in."""
    return terraform_env | {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{cloud.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",  # pragma: allowlist secret: the stand-in takes any
        "AWS_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture
def lab_copy(tmp_path: Path, terraform_env: dict[str, str], cloud_env: dict[str, str]) -> Path:
    """The lab's root with its state in a local file, initialised, its cloud the stand-in."""
    copy = tmp_path / "lab"
    shutil.copytree(TERRAFORM / "lab", copy, ignore=shutil.ignore_patterns(".terraform", "tests"))
    (copy / "backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
    terraform_env.update(cloud_env, TF_VAR_tls_pem=PEM)
    run("init", "-input=false", "-lockfile=readonly", cwd=copy, env=terraform_env)
    return copy


def test_plan_with_the_real_provider(
    lab_copy: Path, tmp_path: Path, terraform_env: dict[str, str], cloud: ThreadingHTTPServer
) -> None:
    """The example should plan; all it makes is tagged, named after the lab, and without the key."""
    plan_file = tmp_path / "plan"
    variables = (TERRAFORM / "lab" / "lab.example.tfvars").read_text()
    (lab_copy / "terraform.tfvars").write_text(variables)
    said = run(
        "plan", "-input=false", "-no-color", f"-out={plan_file}", cwd=lab_copy, env=terraform_env
    )
    text = run("show", "-json", str(plan_file), cwd=lab_copy, env=terraform_env)
    plan: dict[str, Any] = json.loads(text)
    resources = {
        r["address"]: r["values"] for r in plan["planned_values"]["root_module"]["resources"]
    }

    assert "GetRandomPassword" in cloud.asked  # type: ignore[attr-defined]
    for where in (said, text, plan_file.read_bytes().decode("latin-1")):
        assert CANARY not in where
        assert "CanaryPem" not in where

    tags = {
        "lab:id": "demo",
        "lab:project": "gateway-lab",
        "lab:owner": "someone@example.com",
        "lab:managed-by": "terraform",
    }
    tagged = {address: v["tags_all"] for address, v in resources.items() if "tags_all" in v}
    assert len(tagged) == 21
    assert {"aws_scheduler_schedule_group.this", "aws_sfn_state_machine.stop"} <= set(tagged)
    for address, found in tagged.items():
        assert tags.items() <= found.items(), address
    assert [a for a, found in tagged.items() if "lab:expires-at" in found] == [
        "aws_ecs_cluster.this"
    ]

    assert resources["aws_ecs_cluster.this"]["name"] == resource_name("demo")
    assert resources["aws_ecs_service.this"]["name"] == resource_name("demo")
    assert resources["aws_ecs_task_definition.this"]["family"] == resource_name("demo")
    assert resources["aws_scheduler_schedule_group.this"]["name"] == resource_name("demo")
    assert resources["aws_scheduler_schedule.stop"]["group_name"] == resource_name("demo")
    assert resources["aws_scheduler_schedule.stop"]["name"] == STOP_SCHEDULE
    assert resources["aws_sfn_state_machine.stop"]["name"] == state_machine("demo")
    assert {v["name"] for a, v in resources.items() if a.startswith("aws_iam_role.")} == {
        f"{resource_name('demo')}-{role}" for role in ROLES
    }
    assert set(plan["planned_values"]["outputs"]) == {
        "cluster_name",
        "container_name",
        "execution_role_arn",
        "gateway_port",
        "log_group_name",
        "schedule_group_name",
        "schedule_name",
        "secret_arn",
        "secret_name",
        "security_group_id",
        "service_name",
        "state_machine_arn",
        "subnet_ids",
        "task_definition_arn",
        "task_role_arn",
        "tls_name",
        "vpc_id",
    }
    assert plan["planned_values"]["outputs"]["tls_name"]["value"] == tls_name("demo")
    assert resources["aws_secretsmanager_secret.this"]["name"] == key_secret("demo")
    assert resources["aws_secretsmanager_secret.tls"]["name"] == tls_secret("demo")


@pytest.mark.parametrize(
    ("apply", "made"),
    [
        (
            provision.apply_firewall,
            {
                "aws_vpc.this",
                "aws_security_group.gateway",
                'aws_vpc_security_group_ingress_rule.gateway["203.0.113.7/32"]',
                'aws_vpc_security_group_ingress_rule.gateway["8.8.4.4/32"]',
            },
        ),
        (
            provision.apply_key,
            {"aws_secretsmanager_secret.this", "aws_secretsmanager_secret_version.this"},
        ),
    ],
    ids=["firewall", "key"],
)
def test_changes_of_a_live_lab_need_only_its_record(
    apply: Callable[[LabRecord, Site], None],
    made: set[str],
    lab_copy: Path,
    tmp_path: Path,
    terraform_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The record alone should be enough to plan hosts and key as a whole apply does."""
    record = LabRecord(
        lab="demo",
        owner="someone@example.com",
        created_at=datetime(2030, 1, 31, 12, 0, tzinfo=UTC),
        expires_at=datetime(2030, 1, 31, 18, 0, tzinfo=UTC),
        cidrs=["203.0.113.7/32", "8.8.4.4/32"],
        key_version=7,
    )
    asked: list[tuple[dict[str, Any], list[str]]] = []

    class Root:
        def up(self, variables: dict[str, Any], only: list[str]) -> None:
            asked.append((variables, only))

    monkeypatch.setattr(provision, "lab_root", lambda *_: Root())
    place = Place(account="111122223333", region="eu-central-1")
    # Only the cloud's name: nothing is requested from it.
    apply(record, Site(Settings(), Cloud(boto3.Session(region_name=place.region)), place))
    ((narrow, only),) = asked
    # What the record has, and an image, an end and models that it does not have.
    whole = {
        "lab": "demo",
        "owner": record.owner,
        "allowed_cidrs": record.cidrs,
        "key_version": record.key_version,
        "gateway_port": GATEWAY_PORT,
        "repository_arn": "arn:aws:ecr:eu-central-1:111122223333:repository/gateway-lab",
        "image": "111122223333.dkr.ecr.eu-central-1.amazonaws.com/gateway-lab:0123abcd",
        "expires_at": "2031-01-31T18:00:00Z",
        "stop_grace_minutes": 60,
        "models": {"bedrock-nova-micro": {"model_id": "amazon.nova-micro-v1:0"}},
        "container_environment": {"A": "b"},
        "cpu": 2048,
        "memory": 4096,
        "capacity_provider": "FARGATE",
        "architecture": "ARM64",
        "desired_count": 0,
        "tls_version": 7,
    }
    plans = []
    for variables, targets in ((narrow, only), (whole, [])):
        (tmp_path / "variables.json").write_text(json.dumps(variables))
        run(
            "plan",
            "-input=false",
            f"-var-file={tmp_path / 'variables.json'}",
            f"-out={tmp_path / 'plan'}",
            *(f"-target={target}" for target in targets),
            cwd=lab_copy,
            env=terraform_env,
        )
        text = run("show", "-json", str(tmp_path / "plan"), cwd=lab_copy, env=terraform_env)
        resources = json.loads(text)["planned_values"]["root_module"]["resources"]
        plans.append({r["address"]: r["values"] for r in resources if r["mode"] == "managed"})
    alone, everything = plans
    assert set(alone) == made
    assert alone == {address: everything[address] for address in made}


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example of a lab by hand, without anybody's own files."""
    project = tmp_path / "project"
    for folder in ("terraform", "examples/terraform"):
        shutil.copytree(
            TERRAFORM.parent / folder,
            project / folder,
            ignore=shutil.ignore_patterns(".terraform", "tests", "lab.tfvars", "*.pem"),
        )
    for folder in (".venv", "lab"):
        (project / folder).symlink_to(TERRAFORM.parent / folder)
    return project / "examples" / "terraform"


def test_the_example_by_hand_plans_repository_and_lab(
    example: Path, cloud: ThreadingHTTPServer, cloud_env: dict[str, str]
) -> None:
    """The script should plan both roots with their state in the bucket, and keep no private key."""
    cloud_env |= {
        "BUCKET": "gateway-lab-example",
        # S3 at another endpoint, as terraform/README.md has it.
        "TF_CLI_ARGS_init": " ".join(
            f"-backend-config={option}=true"
            for option in (
                "use_path_style",
                "skip_credentials_validation",
                "skip_requesting_account_id",
            )
        ),
        "TF_CLI_ARGS_plan": "-no-color",
        "TF_CLI_ARGS_apply": "-no-color",
    }

    def lab_sh(action: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [example / "lab.sh", action],
            env=cloud_env,
            # Nobody can answer yes here.
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    refused = lab_sh("plan")
    assert refused.returncode == 2
    assert "cp ../../terraform/lab/lab.example.tfvars lab.tfvars" in refused.stderr

    shutil.copy(TERRAFORM / "lab" / "lab.example.tfvars", example / "lab.tfvars")
    planned = lab_sh("plan")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "Plan: 32 to add, 0 to change, 0 to destroy." in planned.stdout
    lock = "PUT /gateway-lab-example/labs/demo/terraform.tfstate.tflock"
    assert lock in cloud.asked  # type: ignore[attr-defined]
    assert "PRIVATE KEY" not in planned.stdout + planned.stderr
    written = [file for file in example.rglob("*") if file.is_file() and file.name != "lab.sh"]
    assert not [f for f in written if b"PRIVATE KEY" in f.read_bytes()]
    assert not (example / "ca.pem").exists()

    # An apply shows its plan and asks, so it ends there.
    made = lab_sh("repository")
    assert made.returncode == 1
    assert "Plan: 2 to add, 0 to change, 0 to destroy." in made.stdout, made.stdout + made.stderr


def _needs(graph: str) -> dict[str, set[str]]:
    """What each resource waits for, through others too, read from ``terraform graph``."""
    direct: dict[str, set[str]] = {}
    for waiting, needed in re.findall(r'^\s*"([^"]+)" -> "([^"]+)";$', graph, re.MULTILINE):
        direct.setdefault(waiting, set()).add(needed)
    needs = {name: set(needed) for name, needed in direct.items()}
    for _ in needs:
        for needed in needs.values():
            needed.update(*(direct.get(name, ()) for name in tuple(needed)))
    return needs


def test_the_end_exists_before_the_service(lab_copy: Path, terraform_env: dict[str, str]) -> None:
    """No task may run without a schedule that will stop it; the schedule waits for nothing slow.

    Destroy goes the other way: the schedule stays until the service is gone.
    """
    needs = _needs(run("graph", cwd=lab_copy, env=terraform_env))
    end = {
        "aws_iam_role.scheduler",
        "aws_iam_role.stop",
        "aws_iam_role_policy.scheduler",
        "aws_iam_role_policy.stop",
        "aws_scheduler_schedule_group.this",
        "aws_sfn_state_machine.stop",
    }
    resources = {n for n in needs["aws_scheduler_schedule.stop"] if not n.startswith("data.")}
    assert resources == end
    assert end | {"aws_scheduler_schedule.stop"} <= needs["aws_ecs_service.this"]


def test_code_and_terraform_agree(lab_copy: Path, terraform_env: dict[str, str]) -> None:
    """Task sizes and the repository's name should be the same in Python and in Terraform."""
    said = run(
        "console",
        "-var-file=" + str(TERRAFORM / "lab" / "lab.example.tfvars"),
        cwd=lab_copy,
        env=terraform_env,
        stdin="jsonencode(local.task_sizes)\n",
    )
    sizes = json.loads(json.loads(said))
    assert {int(cpu): tuple(memory) for cpu, memory in sizes.items()} == TASK_SIZES

    variables = (TERRAFORM / "foundation" / "variables.tf").read_text()
    assert f'default     = "{repository_name()}"' in variables
