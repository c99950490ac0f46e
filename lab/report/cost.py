"""What a lab costs by the hour, so far and until its end, from a dated price table. Pure.

It also says what the same lab would cost on other capacity, on another architecture, and if nobody
ended it.

All of it is an estimate in the table's currency and region; only AWS makes a bill.
"""

from __future__ import annotations

import math
from datetime import date, datetime
from pathlib import Path

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    NonNegativeFloat,
    ValidationError,
    field_validator,
)

from lab.errors import InvalidInputError
from lab.fargate import Architecture, Capacity
from lab.record import LabRecord
from lab.spec import describe_validation

HOURS_PER_MONTH = 730
#: The gateway's key, and its certificate.
SECRETS = 2


class FargatePrice(BaseModel):
    """Fargate on demand, for one architecture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vcpu_hour: NonNegativeFloat
    gb_hour: NonNegativeFloat


class Choice(BaseModel):
    """What an hour costs on this architecture and capacity; ``chosen``: the lab runs on it."""

    model_config = ConfigDict(frozen=True)

    architecture: Architecture
    capacity: Capacity
    hourly: float
    chosen: bool


class CostReport(BaseModel):
    """What a lab costs, in ``currency``: an estimate from prices of ``prices_of``."""

    model_config = ConfigDict(frozen=True)

    currency: str
    prices_of: date
    sources: list[str]
    region: str
    hourly: float
    so_far: float
    #: From its creation to its end.
    in_all: float
    #: The same lab on each of its days, all day and all night.
    day_and_night: float
    saved: float
    #: The same lab through a whole month.
    month: float
    choices: list[Choice]

    @property
    def saved_share(self) -> float:
        """The share of the cost of day and night that the lab's end saves: 0 to 1."""
        return self.saved / self.day_and_night if self.day_and_night else 0.0


class Prices(BaseModel):
    """The price table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date
    sources: list[HttpUrl] = Field(min_length=1)
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
        """One running task of ``cpu`` units and ``memory`` MiB with its address and secrets."""
        price = self.fargate[architecture]
        compute = cpu / 1024 * price.vcpu_hour + memory / 1024 * price.gb_hour
        if capacity is Capacity.SPOT:
            compute *= 1 - self.spot_discount
        return compute + self.public_ipv4_hour + SECRETS * self.secret_month / HOURS_PER_MONTH

    def lab_hourly(self, record: LabRecord) -> float:
        """What ``record``'s lab costs while it runs."""
        return self.hourly(record.cpu, record.memory, record.architecture, record.capacity)

    def lab_so_far(self, record: LabRecord, at: datetime) -> float:
        """What the lab has cost from its creation until ``at``."""
        return self.lab_hourly(record) * _hours(record.created_at, at)

    def lab_in_all(self, record: LabRecord) -> float:
        """What the lab will have cost at its end."""
        return self.lab_hourly(record) * _hours(record.created_at, record.expires_at)

    def report(self, record: LabRecord, at: datetime) -> CostReport:
        """What ``record``'s lab costs, as of ``at``, and what it would cost otherwise."""
        hourly, in_all = self.lab_hourly(record), self.lab_in_all(record)
        days = max(1, math.ceil(_hours(record.created_at, record.expires_at) / 24))
        day_and_night = hourly * 24 * days
        return CostReport(
            currency=self.currency,
            prices_of=self.as_of,
            sources=[str(source) for source in self.sources],
            region=self.region,
            hourly=hourly,
            so_far=self.lab_so_far(record, at),
            in_all=in_all,
            day_and_night=day_and_night,
            saved=day_and_night - in_all,
            month=hourly * HOURS_PER_MONTH,
            choices=[
                Choice(
                    architecture=architecture,
                    capacity=capacity,
                    hourly=self.hourly(record.cpu, record.memory, architecture, capacity),
                    chosen=(architecture, capacity) == (record.architecture, record.capacity),
                )
                for architecture in Architecture
                for capacity in Capacity
            ],
        )


def cost_words(cost: CostReport) -> dict[str, str]:
    """A lab's cost in words, by heading."""
    unit = cost.currency
    return {
        "Cost": f"{cost.hourly:.4f} {unit} an hour, {cost.so_far:.4f} so far, "
        f"{cost.in_all:.4f} until its end",
        "Saved by its end": f"{cost.saved:.4f} {unit} ({cost.saved_share:.0%}) against running day "
        f"and night, which is {cost.month:.2f} a month",
        "Prices": f"an estimate from those of {cost.prices_of}, {cost.region}",
    }


def cost_rows(cost: CostReport) -> list[dict[str, str]]:
    """What an hour costs, a row for each architecture and a column for each capacity."""
    rows: dict[Architecture, dict[str, str]] = {}
    for choice in cost.choices:
        row = rows.setdefault(
            choice.architecture, {f"{cost.currency} an hour": choice.architecture.value}
        )
        row[choice.capacity.value] = f"{choice.hourly:.4f}{' (this lab)' if choice.chosen else ''}"
    return list(rows.values())


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
