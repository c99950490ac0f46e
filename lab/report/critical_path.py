"""When the stages of a run began and ended, and which of them the run waited for. Pure.

Work outside the stages (Prefect's own) shows as the time between two of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

#: What each stage of an up waits for. A stage that is not here waits for those that ended before.
AFTER: dict[str, tuple[str, ...]] = {
    "preflight": ("find place",),
    "hold lab": ("preflight",),
    "schedule end": ("hold lab", "look for leftovers"),
    "plan image": ("hold lab", "look for leftovers"),
    "foundation": ("plan image", "schedule end"),
    "scan image": ("plan image", "schedule end"),
    "audit image": ("plan image", "schedule end"),
    "build image": ("scan image",),
    "provision": ("plan image", "schedule end"),
    "push image": ("foundation", "audit image", "build image"),
    "rollout": ("foundation", "build image", "provision", "push image"),
    "validate": ("rollout",),
    "verify": ("rollout",),
}

#: What a stage spends its seconds on: only if this is faster, the stage is faster.
SPENT_ON: dict[str, str] = {
    "find place": "AWS, asked whose credentials these are",
    "preflight": "Terraform's version, the engine, and Bedrock, asked for each model",
    "hold lab": "the lab's lease in the state bucket, and who holds it",
    "check reason": "the lab's record in the state bucket",
    "destroy": "Terraform: the provider's start, the deletions, the task's own stop",
    "look for leftovers": "AWS, asked service by service",
    "schedule end": "the record in the state bucket, Prefect's server",
    "plan image": "the engine's base image, the registry's list",
    "foundation": "Terraform: the provider's start, the image repository",
    "scan image": "the package index, and every wheel looked into",
    "audit image": "the public sources of advisories, asked about each release",
    "build image": "the Docker engine: wheels unpacked and compiled, layers written",
    "provision": "Terraform: the provider's start, then the cluster, the slowest resource",
    "push image": "the Docker engine compressing layers, the registry taking them",
    "rollout": "ECS pulling the image and starting the task, LiteLLM's own start",
    "validate": "the slowest model, asked twice",
    "verify": "AWS and the gateway, asked side by side; the layers of a new image",
}
BETWEEN = "between stages"
BETWEEN_SPENT_ON = "Prefect"

#: Stages are timed to the millisecond, by two clocks.
_SLACK = timedelta(milliseconds=50)


class StageTime(BaseModel):
    """One stage of a run: when it began, and for how many seconds it ran."""

    model_config = ConfigDict(frozen=True)

    name: str
    started_at: datetime
    seconds: float
    failed: bool = False


class Step(BaseModel):
    """A piece of the critical path: a stage, or the time between two. Steps add up to the run."""

    model_config = ConfigDict(frozen=True)

    name: str
    started_at: datetime
    seconds: float
    spent_on: str

    @property
    def is_stage(self) -> bool:
        """Whether a stage ran then."""
        return self.name != BETWEEN


def critical_path(stages: Sequence[StageTime]) -> list[Step]:
    """What the run waited for, in order, from the first stage's beginning to the last one's end.

    The search goes back from the stage that ended last: each time to the stage that ended last
    among those that it waits for.
    """
    path: list[StageTime] = []
    left = list(stages)
    current = max(left, key=_end, default=None)
    while current is not None:
        path.append(current)
        left = [s for s in left if s is not current and s.started_at <= path[-1].started_at]
        current = max(_before(path[-1], left), key=_end, default=None)
    return _steps(path[::-1])


class StageRow(BaseModel):
    """A line of the account of a run. ``waited`` adds up to the whole run, ``took`` does not."""

    model_config = ConfigDict(frozen=True)

    name: str
    started_at: datetime
    took: float | None
    waited: float
    spent_on: str
    failed: bool = False


def account(stages: Sequence[StageTime]) -> list[StageRow]:
    """Every stage, and every time between stages that the run waited for, as they began."""
    path = critical_path(stages)
    waited = {step.name: step for step in path}
    rows = [
        StageRow(
            name=stage.name,
            started_at=stage.started_at,
            took=stage.seconds,
            waited=waited[stage.name].seconds if stage.name in waited else 0.0,
            spent_on=SPENT_ON.get(stage.name, ""),
            failed=stage.failed,
        )
        for stage in stages
    ]
    rows += [
        StageRow(
            name=step.name,
            started_at=step.started_at,
            took=None,
            waited=step.seconds,
            spent_on=step.spent_on,
        )
        for step in path
        if not step.is_stage
    ]
    return sorted(rows, key=lambda row: row.started_at)


def tool_seconds(steps: Iterable[Step]) -> float:
    """The seconds of the path that the stages themselves took."""
    return sum(step.seconds for step in steps if step.is_stage)


def _end(stage: StageTime) -> datetime:
    return stage.started_at + timedelta(seconds=stage.seconds)


def _before(stage: StageTime, others: list[StageTime]) -> list[StageTime]:
    ended = [other for other in others if _end(other) <= stage.started_at + _SLACK]
    known = [other for other in ended if other.name in AFTER.get(stage.name, ())]
    return known or ended


def _steps(path: list[StageTime]) -> list[Step]:
    steps: list[Step] = []
    until = path[0].started_at if path else datetime.min
    for stage in path:
        waited = (stage.started_at - until).total_seconds()
        if waited > 0:
            steps.append(_step(BETWEEN, until, waited, BETWEEN_SPENT_ON))
        began = max(stage.started_at, until)
        spent = max(0.0, (_end(stage) - began).total_seconds())
        steps.append(_step(stage.name, began, spent, SPENT_ON.get(stage.name, "")))
        until = max(until, _end(stage))
    return steps


def _step(name: str, started_at: datetime, seconds: float, spent_on: str) -> Step:
    return Step(name=name, started_at=started_at, seconds=round(seconds, 3), spent_on=spent_on)
