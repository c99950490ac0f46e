"""The reference: what the seed does, stage by stage, written again. See bench/seed/README.md.

Everything runs in series, with every wait that the seed has. Each stage is timed, to show what the
lab saves.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
import httpx

from adapters.aws.registry import Registry
from adapters.aws.session import Cloud
from adapters.image import engine
from adapters.process import Finished, run_child
from adapters.terraform import cli_environment
from bench.images import SEED, SEED_IMAGE, Builder
from lab.errors import PermanentError
from lab.report.critical_path import StageTime
from lab.settings import Settings
from lab.waiting import wait_for

Log = Callable[[str], None]

MODULE = Path(__file__).resolve().parent / "seed"
POLL_SECONDS = 5.0
ADDRESS_SECONDS = 5.0
FIXED_SECONDS = 15.0
#: The seed polls forever; a bench that never ends measures nothing.
DEADLINE_SECONDS = 600.0
ANSWER_SECONDS = 30.0
PORT = 4000
MODELS = ("bedrock-cohere", "bedrock-llama", "bedrock-titan", "bedrock-titan-lite")


class SeedSequence:
    """The seed's up and down, in a temporary folder of its own."""

    def __init__(
        self, home: Path, cloud: Cloud, builder: Builder, settings: Settings, log: Log
    ) -> None:
        self._home, self._cloud, self._builder = home, cloud, builder
        self._settings, self._log = settings, log
        self._folder = home / "seed"
        self._key = f"sk-{secrets.token_urlsafe(24)}"
        #: The stages of the last up.
        self.stages: list[StageTime] = []

    def up(self) -> float:
        """Bring the reference up; return the seconds until its last model has answered."""
        self.stages = []
        began = time.monotonic()
        with self._stage("provision"):
            self._provision()
        with self._stage("build image"):
            image = self._builder.seed(always_build=True)
        with self._stage("push image"), closing(docker.from_env(timeout=300)) as client:
            engine.push(client, image, Registry(self._cloud, SEED).login(), lambda _: None)
        with self._stage("redeploy"):
            before = {task["taskArn"] for task in self._tasks()}
            self._ecs.update_service(cluster=SEED, service=SEED, forceNewDeployment=True)
        with self._stage("poll"):
            task = self._poll(before)
        with self._stage("address"):
            time.sleep(ADDRESS_SECONDS)
            endpoint = f"http://{self._address(task)}:{PORT}"
        with self._stage("fixed wait"):
            time.sleep(FIXED_SECONDS)
        with self._stage("validate"):
            ask_in_turn(f"{endpoint}/v1", self._key, list(MODELS))
        return time.monotonic() - began

    def down(self) -> float:
        """Destroy it; return the seconds that this took."""
        began = time.monotonic()
        self._terraform("destroy", "-auto-approve")
        return time.monotonic() - began

    @property
    def _ecs(self) -> Any:
        return self._cloud.client("ecs")

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        at, began = datetime.now(UTC), time.monotonic()
        yield
        took = round(time.monotonic() - began, 3)
        self.stages.append(StageTime(name=name, started_at=at, seconds=took))
        self._log(f"  reference: {name} {took:.1f} s")

    def _provision(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(MODULE / "main.tf", self._folder / "main.tf")
        self._terraform("init")
        self._terraform("apply", "-auto-approve")
        self._terraform("output", "-raw", "name")

    def _terraform(self, *arguments: str) -> Finished:
        variables = {
            "image": SEED_IMAGE,
            "cidr": self._settings.deployer_address or "203.0.113.1/32",
            "master_key": self._key,
            "environment": json.dumps(self._settings.container_environment),
        }
        done = run_child(
            ["terraform", arguments[0], "-no-color", *arguments[1:]],
            cwd=self._folder,
            env={
                **_inherited(),
                **cli_environment(self._home),
                **self._cloud.environment(),
                **{f"TF_VAR_{name}": value for name, value in variables.items()},
            },
            deadline=DEADLINE_SECONDS,
        )
        if done.code != 0:
            raise PermanentError(
                f"terraform {arguments[0]} of the reference: {done.stderr[-2000:]}"
            )
        return done

    def _tasks(self) -> list[dict[str, Any]]:
        arns = self._ecs.list_tasks(cluster=SEED, serviceName=SEED)["taskArns"]
        if not arns:
            return []
        found: list[dict[str, Any]] = self._ecs.describe_tasks(cluster=SEED, tasks=arns)["tasks"]
        return found

    def _poll(self, before: set[str]) -> dict[str, Any]:
        """Ask every 5 s for the task that runs and was not there before the redeployment."""
        end = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < end:
            for task in self._tasks():
                if task["taskArn"] not in before and task["lastStatus"] == "RUNNING":
                    return task
            time.sleep(POLL_SECONDS)
        raise PermanentError(f"no new task of the reference ran within {DEADLINE_SECONDS:.0f} s")

    def _address(self, task: dict[str, Any]) -> str:
        (current,) = self._ecs.describe_tasks(cluster=SEED, tasks=[task["taskArn"]])["tasks"]
        details = {
            detail["name"]: detail["value"]
            for attachment in current["attachments"]
            for detail in attachment["details"]
        }
        return str(details["privateIPv4Address"])


def ask_in_turn(base_url: str, key: str, models: list[str]) -> None:
    """Ask one model after another, as the seed does, for a whole answer each.

    A gateway that does not listen yet is asked again: the seed would give up on it. Raises
    PermanentError for an answer without choices.
    """
    with httpx.Client(timeout=ANSWER_SECONDS) as client:
        for model in models:

            def answer(model: str = model) -> httpx.Response | None:
                try:
                    return client.post(
                        f"{base_url}/chat/completions",
                        headers={"Authorization": f"Bearer {key}"},
                        json={
                            "model": model,
                            "messages": [{"role": "user", "content": "Say that you are online."}],
                        },
                    )
                except httpx.TransportError:
                    return None

            response = wait_for(
                f"{model} of the reference",
                answer,
                deadline=DEADLINE_SECONDS,
                first_pause=1.0,
                longest_pause=1.0,
            )
            if response.status_code != httpx.codes.OK or not response.json().get("choices"):
                raise PermanentError(
                    f"{model} of the reference answered HTTP {response.status_code}: "
                    f"{response.text[:300]}"
                )


def _inherited() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "LAB_", "PREFECT_"))}
