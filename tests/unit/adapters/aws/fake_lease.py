"""A store and a clock of the test's own, and the runs on several machines that want one lab."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from adapters.aws.lease import RENEW_SECONDS, Holder, current_holder, hold_lease, lease_key

KEY = lease_key("demo")


class FakeStore:
    """A store with S3's conditional writes; a test may act before and after each write."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.writes = 0
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[str | None], str | None] = lambda etag: etag
        self.changed = threading.Condition(threading.RLock())

    def read(self, key: str) -> tuple[bytes, str] | None:
        with self.changed:
            body = self.objects.get(key)
            return None if body is None else (body, self._etag(body))

    def write(self, key: str, body: bytes, replacing: str | None) -> str | None:
        try:
            self.before()
            with self.changed:
                known = self.objects.get(key)
                if (None if known is None else self._etag(known)) != replacing:
                    written = None
                else:
                    self.objects[key] = body
                    written = self._etag(body)
            return self.after(written)
        finally:
            with self.changed:
                self.writes += 1
                self.changed.notify_all()

    def until(self, come: Callable[[], bool]) -> None:
        """Wait for another thread; fail instead of waiting forever."""
        with self.changed:
            assert self.changed.wait_for(come, timeout=10), "it never came"

    def until_writes(self, more: int) -> None:
        wanted = self.writes + more
        self.until(lambda: self.writes >= wanted)

    @staticmethod
    def _etag(body: bytes) -> str:
        return f'"{hashlib.md5(body).hexdigest()}"'


class Clock:
    """Time that passes when somebody sleeps, and other events that happen meanwhile."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()


class Setting:
    """One store, one clock, and runs that want the lab demo."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.clock = Clock()
        self.said: list[str] = []
        self.lost = threading.Event()

    def hold(
        self,
        run: str,
        *,
        patience: float = 0.0,
        renew_every: float = 3600.0,
        sleep: Callable[[float], None] | None = None,
    ) -> AbstractContextManager[None]:
        return hold_lease(
            self.store,
            "demo",
            self.holder(run),
            patience=lambda _: patience,
            on_lost=self.lost.set,
            log=self.said.append,
            sleep=sleep or self.clock.sleep,
            clock=self.clock,
            renew_every=renew_every,
        )

    @staticmethod
    def holder(run: str) -> Holder:
        return Holder(doing="lab-up", run=run, host="here", since="2030-01-31T12:00:00Z")

    def put(self, run: str, renewals: int = 0) -> None:
        """Let another machine's run hold the lab, renewed so many times."""
        body = f'{{"holder": {self.holder(run).model_dump_json()}, "renewals": {renewals}}}'
        with self.store.changed:
            self.store.objects[KEY] = body.encode()

    def renewing(self, run: str) -> None:
        """Let another machine's run hold the lab, and go on renewing it."""
        begun = self.clock.now

        def renew() -> None:
            self.put(run, int((self.clock.now - begun) // RENEW_SECONDS))

        self.put(run)
        self.clock.meanwhile = renew

    @property
    def held_by(self) -> str | None:
        found = current_holder(self.store, "demo")
        return found.run if found else None
