"""The lab that tests share: the first that needs it brings it up, and no other has to.

A test may change it, and leaves it up and whole. Those that take it down come last: in
``tests/ends``. It is the same in any order, only slower.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from openai import APIConnectionError, APIStatusError

from adapters.gateway.client import open_client
from lab import names
from lab.endpoint import Endpoint
from lab.live import RunningTask
from lab.record import LabRecord
from lab.report.model import LabReport
from tests.canary import Watch
from tests.stack import Ended, Stack

LAB = "shared"
#: From any up to the next, and to the end of the tests that need no end.
TTL = "1h"
#: The aliases of a lab that is asked for no other.
SEED = ["bedrock-llama", "bedrock-titan", "bedrock-titan-lite", "bedrock-cohere"]


@dataclass(frozen=True)
class Birth:
    """How the lab came up, and what each process was started with meanwhile."""

    #: Before the lab had any secret, in seconds of the epoch.
    began: float
    watch: Watch
    #: What ``demo.py`` wrote. Not for a failing test to show.
    said: str = field(repr=False)


@dataclass(frozen=True)
class Rotation:
    """A new key for the lab, while an application went on with the old one."""

    old: str = field(repr=False)
    new: str = field(repr=False)
    before: RunningTask
    after: RunningTask
    #: By the local cloud's clock, which is this machine's.
    after_began: float
    #: When the application asked the task with the old key, and what came: a status, or 0.
    answers: list[tuple[float, int]]
    #: What each key opened at once afterwards.
    status_of_old: int
    status_of_new: int
    #: What the command wrote. Not for a failing test to show.
    said: str = field(repr=False)
    watch: Watch


class SharedLab:
    """The lab, as tests call and change it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        #: The aliases that the lab serves; none while it is not up.
        self.models: list[str] = []
        #: Whether it was up, and has gone.
        self.was_down = False
        self.birth: Birth | None = None
        self._rotation: Rotation | None = None

    def ensure_up(self) -> None:
        """On return the lab is up and serves all of ``SEED``."""
        if not self.models:
            self.stack.made.add(LAB)
            began = time.time() - 2
            argv = [sys.executable, "demo.py", "--lab", LAB, "--ttl", TTL]
            with Watch() as watch:
                ended = self.stack.command(argv)
            assert ended.code == 0, ended.said
            self.birth = Birth(began, watch, ended.said)
            self.models = SEED
        elif self.models != SEED:
            ended = self.up()
            assert ended.code == 0, ended.said

    def came_up(self) -> None:
        """A test has brought the lab up, or to ``SEED``, in a way of its own."""
        self.stack.made.add(LAB)
        self.models = SEED

    def is_gone(self) -> None:
        """A test has seen that the lab is gone."""
        self.models, self.birth, self._rotation = [], None, None
        self.was_down = True

    def up(self, models: list[str] | None = None) -> Ended:
        """``lab-up`` on the lab, with other models if any are given."""
        ended = self.stack.up(LAB, ttl=TTL, **({"models": models} if models else {}))
        if ended.code == 0:
            self.models = models or SEED
        return ended

    def down(self) -> Ended:
        """``lab-down`` on the lab."""
        ended = self.stack.down(LAB)
        if ended.code == 0:
            self.is_gone()
        return ended

    def run(self, flow: str, **parameters: Any) -> Ended:
        """Another flow on the lab."""
        return self.stack.run(f"{flow}/local", lab=LAB, **parameters)

    def rotation(self) -> Rotation:
        """The one rotation of the lab's key, made when it is first asked for."""
        if self._rotation is None:
            self._rotation = self._rotate()
        return self._rotation

    def _rotate(self) -> Rotation:
        old, before, serving = self.key(), self.task(), self.endpoint()
        answers: list[tuple[float, int]] = []
        done = threading.Event()

        def ask() -> None:
            while not done.wait(0.2):
                at = time.time()
                answers.append((at, status(serving, old)))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            with Watch() as watch:
                ended = self.run("lab-rotate-key")
        finally:
            done.set()
            asking.join()
        assert ended.code == 0, ended.said
        new, after, name = self.key(), self.task(), names.resource_name(LAB)
        ecs = self.stack.session().client("ecs")
        (ran,) = ecs.describe_tasks(cluster=name, tasks=[after.arn])["tasks"]
        return Rotation(
            old=old,
            new=new,
            before=before,
            after=after,
            after_began=ran["startedAt"].timestamp(),
            answers=answers,
            status_of_old=status(self.endpoint(), old),
            status_of_new=status(self.endpoint(), new),
            said=ended.said,
            watch=watch,
        )

    def report(self) -> LabReport:
        """That of the newest up."""
        return self.stack.report(LAB)

    def record(self) -> dict[str, Any]:
        """The lab's record, as the state bucket has it."""
        found = self.stack.bucket.read_json(names.lab_record_key(LAB))
        assert found is not None
        return found

    def key(self) -> str:
        """The gateway's key."""
        return self.stack.secrets.require(names.key_secret(LAB))

    def task(self) -> RunningTask:
        """The task that serves now."""
        task = self.stack.service(LAB).running_task()
        assert task is not None
        return task

    def allowed(self) -> list[str]:
        """The hosts that the firewall lets in now."""
        return self.stack.service(LAB).allowed_cidrs()

    def endpoint(self) -> Endpoint:
        """Where the lab answers now, and how it is known."""
        trust = LabRecord.model_validate(self.record()).trust
        assert trust is not None
        return Endpoint.of(LAB, self.task().address, trust.ca)


def status(endpoint: Endpoint, key: str) -> int:
    """What the gateway answers to the key; 0 if it does not answer."""
    client = open_client(endpoint, key).with_options(max_retries=0, timeout=5)
    try:
        return client.models.with_raw_response.list().status_code
    except APIStatusError as error:
        return error.status_code
    except APIConnectionError:
        return 0
