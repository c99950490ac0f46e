"""Provides a Docker engine on a machine that has none.

Exists because the local cloud runs real containers and a fresh machine may have no engine. It
uses any engine that answers, and may stop only one that it started itself.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import docker
import requests
from docker.errors import DockerException

from adapters.process import process_alive, wait_gone
from lab.errors import DeadlineError, PermanentError
from lab.waiting import wait_for
from workstation.packages import install

NEEDED_BYTES = 6_000_000_000
START_DEADLINE_SECONDS = 60.0
STOP_DEADLINE_SECONDS = 30.0
LAST_WORDS = 15

Log = Callable[[str], None]


@dataclass(frozen=True)
class Engine:
    """An engine that answers. ``started_here``: :func:`stop_engine` would stop it."""

    version: str
    root: Path
    started_here: bool


def ensure_engine(home: Path, log: Log) -> Engine:
    """On return a Docker engine answers and has room for the project's images.

    An engine that answers is used as it is; otherwise Docker is installed with apt-get if it is
    missing, and started, with its pid and log in ``home/engine``. May be called any number of
    times. Raises :class:`PermanentError` that says what this machine lacks, or the engine's
    last words when it dies; :class:`TransientError` when apt-get fails;
    :class:`DeadlineError` when the engine does not answer in a minute.
    """
    if platform.system() != "Linux":
        raise PermanentError(
            f"The local cloud runs on Linux only, and this is {platform.system()}",
            "Use a Linux machine, a virtual one will do, or run the lab on AWS.",
        )
    engine = _ask(home)
    if engine is None:
        _install_if_missing(log)
        engine = _start(home, log)
    _check_room(engine)
    return engine


def stop_engine(home: Path, log: Log) -> None:
    """On return the engine that :func:`ensure_engine` started does not run.

    Any other engine is left alone. May be called when nothing runs. Raises
    :class:`DeadlineError` when it does not end in half a minute.
    """
    pid = _our_pid(home)
    if pid is None:
        _pid_file(home).unlink(missing_ok=True)
        return
    log(f"Stopping the Docker engine, process {pid}")
    os.kill(pid, signal.SIGTERM)
    if not wait_gone(pid, STOP_DEADLINE_SECONDS):
        raise DeadlineError(
            f"The Docker engine, process {pid}, did not end in {STOP_DEADLINE_SECONDS:.0f} s",
            f"Its log is {_log_file(home)}.",
        )
    _pid_file(home).unlink(missing_ok=True)


def _ask(home: Path) -> Engine | None:
    try:
        client = docker.from_env(timeout=10)
        try:
            information = client.info()
        finally:
            client.close()
    except (DockerException, requests.RequestException) as error:
        if isinstance(error.__cause__, PermissionError) or "Permission denied" in str(error):
            raise PermanentError(
                "A Docker engine is here, but this user may not use it",
                "Add the user to the group docker (usermod --append --groups docker NAME) and "
                "log in again.",
            ) from error
        return None
    return Engine(
        str(information.get("ServerVersion", "")),
        Path(str(information.get("DockerRootDir", "/var/lib/docker"))),
        _our_pid(home) is not None,
    )


def _install_if_missing(log: Log) -> None:
    if os.environ.get("DOCKER_HOST"):
        raise PermanentError(
            f"No Docker engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}",
            "Start it, or unset DOCKER_HOST.",
        )
    if os.geteuid() != 0:
        raise PermanentError(
            "No Docker engine answers, and only root may install or start one",
            "Start Docker (systemctl start docker), or run this as root.",
        )
    missing = [
        package
        for package, tool in {"docker.io": "dockerd", "iptables": "iptables"}.items()
        if shutil.which(tool) is None
    ]
    if not missing:
        return
    # The packages must start no service: the engine is started and stopped from here.
    install(
        missing,
        PermanentError(
            "No Docker engine is here, and there is no apt-get to install one with",
            "Install Docker Engine by this system's own means, then run this again.",
        ),
        log,
        environment={"RUNLEVEL": "1"},
    )


def _start(home: Path, log: Log) -> Engine:
    folder = home / "engine"
    folder.mkdir(parents=True, exist_ok=True)
    dockerd = shutil.which("dockerd") or "dockerd"
    log(f"Starting {dockerd}; its log is {_log_file(home)}")
    with _log_file(home).open("ab") as output:
        process = subprocess.Popen(
            [dockerd],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # It outlives this process, and must not receive this process's Ctrl-C.
            start_new_session=True,
        )
    _pid_file(home).write_text(str(process.pid), encoding="ascii")

    def answers() -> Engine | None:
        code = process.poll()
        if code is not None:
            _pid_file(home).unlink(missing_ok=True)
            raise PermanentError(
                f"The Docker engine ended at its start with exit code {code}. Its last "
                f"words:\n{_last_words(home)}",
                "Containers may be forbidden here (a container without privileges?); "
                f"the whole log is {_log_file(home)}.",
            )
        return _ask(home)

    try:
        return wait_for(
            "the Docker engine's answer", answers, deadline=START_DEADLINE_SECONDS, log=log
        )
    except DeadlineError as error:
        stop_engine(home, log)
        raise DeadlineError(
            f"{error.message}. The engine's last words:\n{_last_words(home)}", error.hint
        ) from error


def _check_room(engine: Engine) -> None:
    place = engine.root if engine.root.exists() else Path("/")
    free = shutil.disk_usage(place).free
    if free < NEEDED_BYTES:
        raise PermanentError(
            f"{engine.root} has {free / 1e9:.1f} GB free, and the lab's images need "
            f"{NEEDED_BYTES / 1e9:.0f} GB",
            "Make room, for example with: docker system prune",
        )


def _pid_file(home: Path) -> Path:
    return home / "engine" / "dockerd.pid"


def _log_file(home: Path) -> Path:
    return home / "engine" / "dockerd.log"


def _our_pid(home: Path) -> int | None:
    """The engine that was started from here, if it lives; a reused number does not count."""
    try:
        pid = int(_pid_file(home).read_text(encoding="ascii"))
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return pid if name == "dockerd" and process_alive(pid) else None


def _last_words(home: Path) -> str:
    try:
        with _log_file(home).open(encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, maxlen=LAST_WORDS)).strip()
    except OSError:
        return ""
