"""The sizes are those of AWS's table, which is repeated here by hand."""

from __future__ import annotations

import itertools

import pytest

from lab.errors import InvalidInputError
from lab.fargate import TASK_SIZES, Architecture, Capacity, check_task_size

# "Task CPU and memory", Amazon ECS developer guide, as the guide writes it: vCPU, then smallest
# and largest memory in GB and the step between them.
GUIDE = {
    0.5: (1, 4, 1),
    1: (2, 8, 1),
    2: (4, 16, 1),
    4: (8, 30, 1),
    8: (16, 60, 4),
    16: (32, 120, 8),
}
EVERY = {(256, 512), (256, 1024), (256, 2048)} | {
    (int(vcpu * 1024), gb * 1024)
    for vcpu, (least, most, step) in GUIDE.items()
    for gb in range(least, most + 1, step)
}


def accepted(cpu: int, memory: int) -> bool:
    try:
        check_task_size(cpu, memory)
    except InvalidInputError:
        return False
    return True


def test_accepts_exactly_the_guides_pairs() -> None:
    """should accept the pairs in the guide, and no other pair of its numbers"""
    cpus = [*TASK_SIZES, 0, 128, 255, 768, 1000, 3072]
    memories = sorted({m for _, m in EVERY} | {0, 256, 1000, 1536, 31 * 1024, 32 * 1024})
    tried = itertools.product(cpus, memories)
    assert {pair for pair in tried if accepted(*pair)} == EVERY


def test_names_the_cpu_and_the_allowed_ones() -> None:
    """should list the cpu sizes if the cpu is wrong"""
    with pytest.raises(InvalidInputError, match=r"cpu 300 .*256, 512, 1024, 2048, 4096"):
        check_task_size(300, 512)


def test_names_the_memory_and_the_allowed_ones() -> None:
    """should list the memory sizes of that cpu if the memory is wrong"""
    with pytest.raises(InvalidInputError, match=r"memory 4096 .* cpu 256 .*512, 1024, 2048\n"):
        check_task_size(256, 4096)


def test_every_vendor_spells_an_architecture_its_own_way() -> None:
    """should give ECS and Docker the words that they know"""
    assert [(a.value, a.ecs, a.docker) for a in Architecture] == [
        ("x86_64", "X86_64", "linux/amd64"),
        ("arm64", "ARM64", "linux/arm64"),
    ]


def test_capacity_has_the_names_of_ecs_providers() -> None:
    """should be the names of ECS's own capacity providers"""
    assert {c.value for c in Capacity} == {"FARGATE", "FARGATE_SPOT"}
