"""The local cloud and Prefect as a user commands them, for the tests that need them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import docker
from botocore.exceptions import ClientError

from adapters.aws.bucket import StateBucket
from adapters.aws.denial import find_denial
from adapters.aws.registry import Registry
from adapters.aws.secrets import Secrets
from adapters.aws.service import LabService
from adapters.aws.session import Cloud
from adapters.image.base_image import ensure_base_image
from lab import names
from lab.image import recipe
from lab.models.catalog import load_catalog
from lab.models.render import litellm_config
from lab.report.model import LabReport, read_report
from lab.settings import ROOT, Settings
from tests.trail import of_deployer, read_trail, step_of
from workstation import localcloud, prefect_api
from workstation.deployer import ACCOUNT, ensure_deployer, local_policies, root_session
from workstation.policy import BOUNDARY, read_calls, read_rights
from workstation.targets import state_home


@dataclass
class Ended:
    """A command that ended: exit code and what the terminal said."""

    code: int
    said: str


class Stack:
    """The local cloud and Prefect, as a user commands them."""

    def __init__(self) -> None:
        #: The labs that the tests made by any way; the session's end destroys what is left of them.
        self.made: set[str] = set()
        self._began = time.time()
        self._expected: set[str] = set()
        self._cloud = Cloud(self.session())

    @property
    def bucket(self) -> StateBucket:
        return StateBucket(self.cloud(), names.state_bucket(ACCOUNT, localcloud.REGION))

    @property
    def secrets(self) -> Secrets:
        return Secrets(self.cloud())

    def service(self, lab: str) -> LabService:
        return LabService(self.cloud(), lab)

    def prefect(self, *arguments: str, deadline: float = 420) -> Ended:
        """Run the real ``prefect`` command in the project's folder."""
        return self.command([str(Path(sys.executable).with_name("prefect")), *arguments], deadline)

    def command(self, argv: list[str], deadline: float = 420) -> Ended:
        done = subprocess.run(
            argv,
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=deadline,
            check=False,
        )
        return Ended(done.returncode, done.stdout)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PREFECT_API_URL": prefect_api.api_url(), "COLUMNS": "200"}

    def up(self, lab: str, **spec: Any) -> Ended:
        """``prefect deployment run 'lab-up/local'``, watched to its end."""
        self.made.add(lab)
        return self.run("lab-up/local", **{"lab": lab, "ttl": "30m", **spec})

    def down(self, lab: str) -> Ended:
        """``prefect deployment run 'lab-down/local'``, watched to its end."""
        return self.prefect(
            "deployment", "run", "lab-down/local", "--param", f"lab={lab}", "--watch"
        )

    def run(self, deployment: str, **parameters: Any) -> Ended:
        """``prefect deployment run``, watched to its end."""
        given = json.dumps(parameters)
        return self.prefect("deployment", "run", deployment, "--params", given, "--watch")

    def guard(self, deployment: str, **parameters: Any) -> str:
        """Run a guard to its end; one that its schedule runs just then cancels ours: try again."""
        for _ in range(20):
            ended = self.run(deployment, **parameters)
            if ended.code == 0:
                return ended.said
            assert "Cancelled" in ended.said, ended.said
        raise AssertionError(f"{deployment} was cancelled again and again")

    @contextmanager
    def state_locked(self, lab: str) -> Iterator[None]:
        """Within this block a Terraform of another machine holds the lock of the lab's state."""
        bucket = self.bucket
        bucket.ensure()
        key = names.lab_state_key(lab)
        lock = {
            "ID": str(uuid.uuid4()),
            "Operation": "OperationTypeApply",
            "Who": "somebody@elsewhere",
            "Version": "1.11.0",
            "Created": datetime.now(UTC).isoformat(),
            "Path": f"{bucket.name}/{key}",
        }
        s3, place = self.session().client("s3"), {"Bucket": bucket.name, "Key": f"{key}.tflock"}
        s3.put_object(**place, Body=json.dumps(lock).encode(), IfNoneMatch="*")
        try:
            yield
        finally:
            s3.delete_object(**place)

    @contextmanager
    def without(self, action: str) -> Iterator[None]:
        """Within this block the deployer may not do ``action``, and all else."""
        self._expected.add(action)
        policies = local_policies()
        for document in policies.values():
            for statement in document["Statement"]:
                statement["Action"] = [a for a in statement["Action"] if a != action]
            # AWS refuses a statement without an action; MiniStack takes it for one of all actions.
            document["Statement"] = [s for s in document["Statement"] if s["Action"]]
        ensure_deployer(lambda _: None, policies)
        try:
            yield
        finally:
            ensure_deployer(lambda _: None)

    def refuses(self, action: str, call: Callable[[], object]) -> bool:
        """Whether the deployer, who makes ``call``, is refused ``action``."""
        self._expected.add(action)
        try:
            call()
        except ClientError as error:
            denial = find_denial(str(error))
            return denial is not None and denial.action == action
        return False

    @contextmanager
    def everything_allowed(self) -> Iterator[None]:
        """Within this block the deployer may do whatever it asks for: to find out what that is."""
        allow = {"Sid": "All", "Effect": "Allow", "Action": "*", "Resource": "*"}
        document = {"Version": "2012-10-17", "Statement": [allow]}
        boundary = {BOUNDARY: local_policies()[BOUNDARY]}
        ensure_deployer(lambda _: None, {"everything": document, **boundary})
        try:
            yield
        finally:
            ensure_deployer(lambda _: None)

    def trail(self) -> list[dict[str, Any]]:
        """Every decision since the tests began."""
        return read_trail(self._began)

    def unexpected(self) -> list[str]:
        """What the flows asked for since the tests began, and were refused or do not declare."""
        declared = {call.action for call in read_calls()} | set(read_rights()["unevaluated"])
        return sorted(
            {
                f"{entry['decision']}: {entry['action']} on {entry['resource']}, "
                f"stage {step_of(entry['agent'])}"
                for entry in of_deployer(self.trail())
                if entry["action"]
                not in (self._expected if entry["decision"] == "denied" else declared)
            }
        )

    def report(self, lab: str) -> LabReport:
        report = read_report(state_home() / "labs" / lab)
        assert report is not None, f"lab {lab} left no report"
        return report

    def push_broken_image(self, aliases: list[str]) -> str:
        """Put an image that dies at once under the tag that these models' image would have.

        Tags are immutable: the models must be a set that no other test brings up.
        """
        client = docker.from_env()
        base = ensure_base_image(client, "x86_64", public_reference=None, log=lambda _: None)
        config = litellm_config(load_catalog(Settings().catalog_path).choose(aliases))
        tag = recipe.image_tag(
            recipe.GATEWAY, base_identity=base.identity, architecture="x86_64", config_text=config
        )
        words = "import sys; print('no gateway in this image'); sys.exit(7)"
        dockerfile = f"FROM {base.reference}\nENTRYPOINT {json.dumps(['python3', '-c', words])}\n"
        reference = f"{localcloud.REGISTRY_HOST}/{names.repository_name()}:{tag}"
        client.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=reference, pull=False)
        login = Registry(self.cloud(), names.repository_name()).login()
        pushed = client.api.push(
            reference, auth_config={"username": login.username, "password": login.password}
        )
        assert "error" not in pushed, pushed
        client.images.remove(reference)
        return tag

    def session(self) -> boto3.Session:
        """What the tests do themselves, they do as root: the deployer does what the flows do."""
        return root_session()

    def cloud(self) -> Cloud:
        return self._cloud

    def task_arn(self, lab: str) -> str | None:
        """The task that serves ``lab`` now."""
        task = self.service(lab).running_task()
        return task.arn if task else None
