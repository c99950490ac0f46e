"""What every row can use: the engine, the images, and a stack that starts when it is first used.

At the end, nothing that the bench made is left on the machine except its results.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Any

import docker

from bench import containers
from bench.harness import SideName
from bench.images import SEED_IMAGE, Builder, built_here, forget_builds
from bench.seed_sequence import SeedSequence
from bench.stack import Stack, own_stack
from lab.errors import PermanentError
from workstation.engine import ensure_engine, stop_engine
from workstation.targets import state_home

Log = Callable[[str], None]


class Bench:
    """The context of a bench; use it in a ``with``."""

    def __init__(self, log: Log, *, quick: bool = False) -> None:
        self.log, self.quick = log, quick
        #: What is worth knowing about a run besides its figures: stages, for the charts.
        self.details: dict[str, dict[SideName, list[Any]]] = {}
        self._home = state_home() / "bench"
        self._wheels = state_home() / "wheels"
        self._exits, self._stack_exits = ExitStack(), ExitStack()
        self._stack: Stack | None = None

    def __enter__(self) -> Bench:
        try:
            self._enter()
        except BaseException:
            self._exits.close()
            raise
        return self

    def _enter(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        lock = self._exits.enter_context((self._home.parent / "bench.lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermanentError(
                "another `make bench` runs on this machine", "Wait for its end."
            ) from None
        self._exits.callback(shutil.rmtree, self._home, ignore_errors=True)
        # Not in the stack's home: the end of the stack must not end the engine.
        engine_home = self._home / "machine"
        ensure_engine(engine_home, self.log)
        self._exits.callback(stop_engine, engine_home, self.log)
        self.engine: docker.DockerClient = self._exits.enter_context(
            closing(docker.from_env(timeout=300))
        )
        containers.remove_leftovers(self.engine)
        # Images that were there before are there afterwards, as the bench built them again.
        self._exits.callback(forget_builds, lambda _: None, built_here(self.engine) - {SEED_IMAGE})
        self.builder = Builder(self.engine, self._home, self._wheels, lambda _: None)
        self.log("Base image and wheels of both sides")
        self.builder.prepare()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._exits:
            self._stack_exits.close()

    @property
    def stack(self) -> Stack:
        """The local cloud and Prefect, running until :meth:`quiet` or the end."""
        if self._stack is None:
            home = self._home / "stack"
            home.mkdir(parents=True, exist_ok=True)
            self._wheels.mkdir(parents=True, exist_ok=True)
            if not (home / "wheels").exists():
                (home / "wheels").symlink_to(self._wheels)
            self._stack = self._stack_exits.enter_context(own_stack(home, self.log))
        return self._stack

    def quiet(self) -> None:
        """On return no stack runs: nothing else works during a measurement."""
        self._stack = None
        self._stack_exits.close()

    def reference(self) -> SeedSequence:
        """The seed's sequence on the stack."""
        stack = self.stack
        return SeedSequence(stack.home, stack.cloud, self.builder, stack.settings, self.log)

    def keep(self, what: str, side: SideName, detail: Any) -> None:
        """Store ``detail`` with the raw figures."""
        self.details.setdefault(what, {}).setdefault(side, []).append(detail)
