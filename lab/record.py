"""A lab's record, which is stored next to its Terraform state in the state bucket. Pure.

It is written before anything billable exists, so the bucket alone is enough to find every lab and
its end.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from lab import names
from lab.addresses import check_hosts
from lab.certificate import Trust
from lab.durations import format_duration, to_rfc3339
from lab.errors import InvalidInputError
from lab.fargate import Architecture, Capacity
from lab.image.plan import PinnedImage
from lab.spec import OnFailure

RECORD_VERSION = 1


class Reason(StrEnum):
    """Why a lab is to be destroyed; only a person's request (``ASKED``) holds in any case."""

    ASKED = "asked"
    END = "end"
    FAILED_UP = "failed-up"


class ServedModel(BaseModel):
    """A model as the lab's task role knows it; ``regions`` are those that its profile leads to."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    model_id: str
    inference_profile_id: str | None = None
    regions: list[str] = Field(default_factory=list)


class LabRecord(BaseModel):
    """A lab as the cloud remembers it. Times are UTC."""

    model_config = ConfigDict(extra="ignore")

    version: int = RECORD_VERSION
    lab: str
    owner: str = "unknown"
    created_at: datetime
    expires_at: datetime
    on_failure: OnFailure = OnFailure.KEEP
    #: The run that last registered the lab's end: the up whose failure counts.
    up_run: str | None = None
    architecture: Architecture = Architecture.X86_64
    capacity: Capacity = Capacity.SPOT
    cpu: int = 1024
    memory: int = 2048
    models: list[str] = Field(default_factory=list)
    #: When Bedrock retires the model behind an alias, as far as was known at the last up.
    model_ends: dict[str, datetime] = Field(default_factory=dict)
    #: The model behind each alias: the task role may call these.
    served: dict[str, ServedModel] = Field(default_factory=dict)
    #: The image that was last rolled out, written as ``repository:tag@digest``.
    image: PinnedImage | None = None
    cidrs: list[str] = Field(default_factory=list)
    #: The one of ``cidrs`` that was added as the deployer's: it may move with the deployer.
    deployer: str | None = None
    #: Whether somebody also gave that address: then it stays when the deployer moves.
    deployer_given: bool = False
    #: The number of the lab's key: for another number, Terraform has AWS make another key.
    key_version: int = 1
    #: Minutes before the end for which a notice of this end was already given.
    notices: list[int] = Field(default_factory=list)
    #: How callers recognise the gateway; ``None`` until the lab is provisioned.
    trust: Trust | None = None

    @field_serializer("created_at", "expires_at")
    def _rfc3339(self, moment: datetime) -> str:
        return to_rfc3339(moment)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of all that the lab has, as Terraform gives them."""
        return {
            names.TAG_LAB: self.lab,
            names.TAG_PROJECT: names.PROJECT,
            names.TAG_OWNER: self.owner,
            names.TAG_MANAGED_BY: "terraform",
        }

    def moved_to(self, expires_at: datetime, longest: timedelta) -> LabRecord:
        """The record with another end, for which no notice was given yet.

        Raises InvalidInputError if the lab would live longer than ``longest`` from its creation.
        """
        latest = self.created_at + longest
        if expires_at > latest:
            raise InvalidInputError(
                f"lab {self.lab} may live until {to_rfc3339(latest)} at the latest "
                f"({format_duration(longest)} from its creation at {to_rfc3339(self.created_at)}); "
                f"asked for was {to_rfc3339(expires_at)}",
                "Ask for an earlier end, or bring up another lab.",
            )
        if self.trust and expires_at > self.trust.not_after:
            raise InvalidInputError(
                f"the certificate of lab {self.lab} is valid until "
                f"{to_rfc3339(self.trust.not_after)}; asked for was {to_rfc3339(expires_at)}",
                "Bring the lab up again: that makes another certificate.",
            )
        return self.model_copy(update={"expires_at": expires_at, "notices": []})

    def allowing(self, add: Collection[str], remove: Collection[str]) -> LabRecord:
        """The record that allows ``add`` too, and ``remove`` no longer. Repeating changes nothing.

        Raises InvalidInputError if no host would be allowed, or more than a firewall takes.
        """
        cidrs = sorted({*self.cidrs, *add} - {*remove})
        check_hosts(cidrs)
        return self.model_copy(
            update={
                "cidrs": cidrs,
                # A person who removes the deployer does not want it back at its next address.
                "deployer": None if self.deployer in remove else self.deployer,
                "deployer_given": self.deployer not in remove
                and (self.deployer_given or self.deployer in add),
            }
        )

    def following(self, address: str) -> LabRecord:
        """The record with the deployer at ``address``; the addresses that somebody gave stay.

        Only for a record that names the deployer's host. Raises InvalidInputError if more hosts
        would be allowed than a firewall takes.
        """
        if address == self.deployer:
            return self
        given = {*self.cidrs} - ({self.deployer} if not self.deployer_given else set())
        cidrs = sorted({*given, address})
        check_hosts(cidrs)
        return self.model_copy(
            update={"cidrs": cidrs, "deployer": address, "deployer_given": address in given}
        )

    def with_new_key(self) -> LabRecord:
        """The record of a lab that gets another key at the next apply."""
        return self.model_copy(update={"key_version": self.key_version + 1})

    def to_be_destroyed(self, reason: Reason, at: datetime, of_run: str | None = None) -> bool:
        """Whether ``reason`` still holds: the end may have moved, a failed lab may be kept.

        The failed up must be the lab's last: one that was refused changed nothing.
        """
        match reason:
            case Reason.END:
                return at >= self.expires_at
            case Reason.FAILED_UP:
                return self.on_failure is OnFailure.DESTROY and of_run == self.up_run
            case Reason.ASKED:
                return True

    def ending_models(self, until: datetime) -> list[str]:
        """Each alias whose model Bedrock retires by ``until``, soonest first.

        With the day, as in ``alias (2030-01-31)``.
        """
        ends = sorted((end, alias) for alias, end in self.model_ends.items() if end <= until)
        return [f"{alias} ({end:%Y-%m-%d})" for end, alias in ends]

    def due_notices(self, at: datetime, thresholds: tuple[int, ...]) -> list[int]:
        """The thresholds (minutes before the end) that ``at`` has passed without a notice."""
        left = (self.expires_at - at).total_seconds() / 60
        return [m for m in thresholds if 0 < left <= m and m not in self.notices]
