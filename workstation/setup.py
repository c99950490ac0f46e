"""Makes everything that this machine needs before ``lab-up`` can run, in as few steps as possible.

:func:`take_down` stops what was started here, and leaves alone what was there before.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lab.errors import PermanentError
from workstation import prefect, prefect_api
from workstation.deployer import ensure_deployer
from workstation.engine import ensure_engine, stop_engine
from workstation.localcloud import start_local_cloud, stop_local_cloud
from workstation.targets import state_home

Log = Callable[[str], None]


def check_platform() -> None:
    """Raise PermanentError on anything but Linux."""
    if platform.system() != "Linux":
        raise PermanentError(
            f"this runs on Linux only, not on {platform.system()}",
            "Use a Linux machine or virtual machine with Python 3.11 to 3.13 and Terraform.",
        )


def set_up(target: str, log: Log) -> None:
    """On return the engine, Prefect and, for the local target, the local cloud are ready."""
    check_platform()
    home = state_home()
    home.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=2) as pool:
        orchestration = pool.submit(_start_prefect, target, log)
        ensure_engine(home, log)
        if target == "local":
            start_local_cloud(home, log)
            ensure_deployer(log)
        orchestration.result()


def take_down(log: Log) -> None:
    """On return nothing that :func:`set_up` started runs any more. Safe when nothing runs."""
    home = state_home()
    prefect.stop(log)
    stop_local_cloud(home, log, forget=True)
    stop_engine(home, log)


def _start_prefect(target: str, log: Log) -> None:
    prefect.start_server(log)
    prefect.register(log)
    _switch_guards_on(target, log)
    prefect.start_worker(log, target)


def _switch_guards_on(target: str, log: Log) -> None:
    """On return the reaper and the watch of a target that is used run by their schedules."""
    with prefect_api.Api() as api:
        for guard in (f"lab-reap/{target}", f"lab-watch/{target}"):
            for schedule in api.schedules(guard):
                if not schedule["active"]:
                    log(f"Switching the schedule of {guard} on")
                    api.set_schedule(guard, schedule["id"], {"active": True})
