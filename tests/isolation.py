"""What every test without a cloud has: its own environment, and no network."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_LOOPBACK = ("127.", "::1", "localhost")
#: The local cloud and Prefect's server: a unit test that meets one would depend on the machine.
_SERVERS = {4200, 4566}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the person who runs the tests cannot change their result."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "LAB_", "PREFECT_", "TF_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test for each connection or name look-up, except to this machine's loopback.

    The attempt is also kept, because the tested code may catch the exception. Sockets among the
    temporary files are allowed: through one, `multiprocessing` speaks to its own processes.
    """
    attempts: list[str] = []

    def refuse(what: object) -> None:
        attempts.append(str(what))
        raise OSError(f"a unit test tried to reach {what}")

    def guarded(name: str) -> None:
        real = getattr(socket.socket, name)

        def connect(self: socket.socket, address: Any) -> Any:
            if isinstance(address, str) and Path(address).is_relative_to(tempfile.gettempdir()):
                return real(self, address)
            remote = not isinstance(address, tuple) or not str(address[0]).startswith(_LOOPBACK)
            if remote or address[1] in _SERVERS:
                refuse(address)
            return real(self, address)

        monkeypatch.setattr(socket.socket, name, connect)

    guarded("connect")
    guarded("connect_ex")
    find = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else host
        if text and not text.startswith(_LOOPBACK):
            refuse(text)
        return find(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    assert not attempts, f"connections that no unit test may make: {attempts}"
