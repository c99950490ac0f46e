"""A lab as seen in Prefect, the Docker engine and this machine's processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from lab import names
from workstation import prefect_api


def wait_until(check: Callable[[], Any], seconds: float, what: str, every: float = 0.5) -> Any:
    """The result of ``check``, as soon as there is one."""
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, f"{what} took more than {seconds:.0f} s"
        time.sleep(every)
    return found


def scheduled_ends(lab: str) -> list[dict[str, Any]]:
    """The runs of ``lab-down`` that wait for the end of ``lab``."""
    with prefect_api.Api() as api:
        return list(api.runs(tags=["lab-end", f"lab:{lab}"], states=["SCHEDULED"]))


def artifact(key: str) -> str:
    """The newest artifact of ``key``; fails if there is none."""
    with prefect_api.Api() as api:
        found = api.artifact(key)
    assert found is not None, f"there is no artifact {key}"
    return str(found["data"])


def artifacts(key: str) -> list[str]:
    """Every version of the artifact of ``key``."""
    with prefect_api.Api() as api:
        found = api._ask("POST", "/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}})
    return [str(one["data"]) for one in found]


def variable(name: str) -> Any:
    """The value of Prefect's variable ``name``; ``None`` where there is none."""
    with prefect_api.Api() as api:
        found = api._ask("GET", f"/variables/name/{name}")
    return found["value"] if found else None


def events(name: str, lab: str) -> list[Any]:
    """The events ``name`` of ``lab``."""
    wanted = {"filter": {"event": {"name": [name]}, "resource": {"id": [f"lab.{lab}"]}}}
    with prefect_api.Api() as api:
        return list(api._ask("POST", "/events/filter", wanted)["events"])


def last_message(flow: str) -> str:
    """The message of the newest run's state."""
    body = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC", "limit": 1}
    with prefect_api.Api() as api:
        (run,) = api._ask("POST", "/flow_runs/filter", body)
    return str(run["state"]["message"])


def containers(lab: str) -> list[Container]:
    """The containers of the lab's tasks, also ended ones."""
    name = names.resource_name(lab)
    return [c for c in docker.from_env().containers.list(all=True) if name in str(c.labels)]


def terraform_applies(lab: str) -> bool:
    """Whether a Terraform process works on ``lab``."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        of_lab = f"/labs/{lab}\0".encode() in environment + b"\0"
        if argv[0].endswith(b"terraform") and b"apply" in argv and of_lab:
            return True
    return False
