"""A lab as the cloud shows it: its running task, its state, and what callers need. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from lab.endpoint import Endpoint
from lab.record import LabRecord
from lab.report.cost import CostReport


@dataclass(frozen=True)
class RunningTask:
    """The task that serves the lab: its ARN, address, and the digest of the image it runs."""

    arn: str
    address: str
    image_digest: str | None


class LabState(StrEnum):
    """The state of a lab, as far as the cloud shows it."""

    UP = "up"
    NO_TASK = "no task"
    EXPIRED = "past its end"
    ORPHANED = "orphaned"


class LabSeen(BaseModel):
    """A lab as the cloud shows it. ``record`` is ``None`` where the bucket has none."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    lab: str
    state: LabState
    why: str
    record: LabRecord | None = None
    task: RunningTask | None = None
    held_by: str | None = None


class LiveLab(BaseModel):
    """A lab as it is now, for those who call it or pay for it. Money is an estimate."""

    model_config = ConfigDict(frozen=True)

    lab: str
    owner: str
    endpoint: Endpoint | None
    ready: bool
    created_at: datetime
    expires_at: datetime
    left: str
    models: list[str]
    #: The models that Bedrock retires soon, with the day.
    ending: list[str] = Field(default_factory=list)
    allowed: list[str]
    deployer: str | None
    deployer_allowed: bool | None
    cost: CostReport
    #: The host that the firewall allows as the deployer's, and the one that it just replaced.
    deployer_rule: str | None = None
    moved_from: str | None = None

    @property
    def has_lost_deployer(self) -> bool:
        """Whether the firewall allows the deployer at an address that it no longer has."""
        return None not in (self.deployer, self.deployer_rule) and (
            self.deployer != self.deployer_rule
        )
