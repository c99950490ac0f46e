"""What Fargate can run: task sizes and architectures. Pure.

Source: AWS, "Amazon ECS task definition parameters for Fargate", task size.
"""

from __future__ import annotations

from enum import StrEnum

from lab.errors import InvalidInputError


class Architecture(StrEnum):
    """A processor architecture, by the name that Linux gives it."""

    X86_64 = "x86_64"
    ARM64 = "arm64"

    @property
    def ecs(self) -> str:
        """ECS's spelling, for a task definition's runtime platform."""
        return "X86_64" if self is Architecture.X86_64 else "ARM64"

    @property
    def docker(self) -> str:
        """Docker's spelling of the platform."""
        return "linux/amd64" if self is Architecture.X86_64 else "linux/arm64"


class Capacity(StrEnum):
    """Where the task's compute comes from; the value is the ECS capacity provider's name."""

    SPOT = "FARGATE_SPOT"
    ON_DEMAND = "FARGATE"


_GB = 1024
#: CPU units (1024 = 1 vCPU) to the memory sizes in MiB that Fargate offers with them.
TASK_SIZES: dict[int, tuple[int, ...]] = {
    256: (512, 1 * _GB, 2 * _GB),
    512: tuple(n * _GB for n in range(1, 5)),
    1024: tuple(n * _GB for n in range(2, 9)),
    2048: tuple(n * _GB for n in range(4, 17)),
    4096: tuple(n * _GB for n in range(8, 31)),
    8192: tuple(n * _GB for n in range(16, 61, 4)),
    16384: tuple(n * _GB for n in range(32, 121, 8)),
}


def check_task_size(cpu: int, memory: int) -> None:
    """Raise InvalidInputError unless Fargate has a task with ``cpu`` units and ``memory`` MiB."""
    if cpu not in TASK_SIZES:
        raise InvalidInputError(
            f"cpu {cpu} is not a Fargate size; allowed: {', '.join(map(str, TASK_SIZES))}",
            "1024 units are one vCPU.",
        )
    if memory not in TASK_SIZES[cpu]:
        sizes = ", ".join(map(str, TASK_SIZES[cpu]))
        raise InvalidInputError(
            f"memory {memory} MiB does not go with cpu {cpu} on Fargate; allowed: {sizes}",
            "Choose one of these memory sizes or another cpu.",
        )
