"""Lets MiniStack run a task's containers within the bounds that its task definition sets.

Exists because MiniStack runs real containers, but without the user, the read-only file system,
the dropped capabilities and the limits of CPU and memory that Fargate enforces: a gateway that
needs more than it may have would fail on AWS only. It may not change what a task definition leaves
open.
"""

from typing import Any

from ministack.services import ecs

CPU_UNITS = 1024
MEBIBYTE = 1024 * 1024

_build_run_kwargs = ecs._build_run_kwargs


def build_run_kwargs(cdef: dict[str, Any], td: dict[str, Any], *rest: Any) -> dict[str, Any]:
    """MiniStack's arguments of Docker's ``run``, with the bounds of ``cdef`` and ``td``."""
    return _build_run_kwargs(cdef, td, *rest) | bounds(cdef, td)


def bounds(cdef: dict[str, Any], td: dict[str, Any]) -> dict[str, Any]:
    """The bounds in a container's and its task's definition, as the Docker SDK takes them."""
    linux = cdef.get("linuxParameters") or {}
    found = {
        "user": cdef.get("user"),
        "read_only": cdef.get("readonlyRootFilesystem"),
        "cap_drop": (linux.get("capabilities") or {}).get("drop"),
        "init": linux.get("initProcessEnabled"),
        "nano_cpus": int(int(td.get("cpu") or 0) * 1e9 / CPU_UNITS),
        "mem_limit": int(td.get("memory") or 0) * MEBIBYTE,
        # Fargate's tasks gain no privileges by a program of another user.
        "security_opt": ["no-new-privileges"],
    }
    if found["mem_limit"]:
        # Fargate's tasks have no swap.
        found["memswap_limit"] = found["mem_limit"]
    return {name: value for name, value in found.items() if value}


def hold_to_bounds() -> None:
    """From now on MiniStack runs containers within their bounds."""
    ecs._build_run_kwargs = build_run_kwargs
