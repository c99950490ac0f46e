"""What a lab costs by the hour, so far and until its end, from a dated price table. Pure.

An estimate in the table's currency and region; a bill is AWS's alone.
"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    ValidationError,
    field_validator,
)

from lab.errors import InvalidInputError
from lab.fargate import Architecture, Capacity
from lab.record import LabRecord
from lab.spec import describe_validation

HOURS_PER_MONTH = 730


class FargatePrice(BaseModel):
    """Fargate on demand, for one architecture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vcpu_hour: NonNegativeFloat
    gb_hour: NonNegativeFloat


class Prices(BaseModel):
    """The price table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date
    region: str
    currency: str
    fargate: dict[Architecture, FargatePrice]
    spot_discount: float = Field(ge=0, le=1)
    public_ipv4_hour: NonNegativeFloat
    secret_month: NonNegativeFloat

    @field_validator("fargate")
    @classmethod
    def _all_of_them(
        cls, value: dict[Architecture, FargatePrice]
    ) -> dict[Architecture, FargatePrice]:
        missing = [architecture.value for architecture in Architecture if architecture not in value]
        if missing:
            raise ValueError(f"no price for {', '.join(missing)}")
        return value

    def hourly(
        self, cpu: int, memory: int, architecture: Architecture, capacity: Capacity
    ) -> float:
        """One running task of ``cpu`` units and ``memory`` MiB with its address and secret."""
        price = self.fargate[architecture]
        compute = cpu / 1024 * price.vcpu_hour + memory / 1024 * price.gb_hour
        if capacity is Capacity.SPOT:
            compute *= 1 - self.spot_discount
        return compute + self.public_ipv4_hour + self.secret_month / HOURS_PER_MONTH

    def lab_hourly(self, record: LabRecord) -> float:
        """What ``record``'s lab costs while it runs."""
        return self.hourly(record.cpu, record.memory, record.architecture, record.capacity)

    def lab_so_far(self, record: LabRecord, at: datetime) -> float:
        """What the lab has cost from its creation until ``at``."""
        return self.lab_hourly(record) * _hours(record.created_at, at)

    def lab_in_all(self, record: LabRecord) -> float:
        """What the lab will have cost at its end."""
        return self.lab_hourly(record) * _hours(record.created_at, record.expires_at)


def load_prices(path: Path) -> Prices:
    """The price table in ``path``; InvalidInputError names what is wrong with it."""
    try:
        return Prices.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidInputError(f"{path}: not a price table: {error}", "Restore it.") from error
    except ValidationError as error:
        raise InvalidInputError(
            f"{path}: " + "; ".join(describe_validation(error)), "Correct the price table."
        ) from error


def _hours(start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds() / 3600)
