"""The cost of a lab, compared with sums that were done by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.errors import InvalidInputError
from lab.fargate import Architecture, Capacity
from lab.record import LabRecord
from lab.report.cost import cost_rows, cost_words, load_prices
from lab.settings import Settings

MADE = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
TABLE = """
as_of: 2025-11-01
sources: [https://prices.example/fargate]
region: us-east-1
currency: USD
fargate:
  x86_64: {vcpu_hour: 0.04, gb_hour: 0.004}
  arm64: {vcpu_hour: 0.03, gb_hour: 0.003}
spot_discount: 0.75
public_ipv4_hour: 0.005
secret_month: 0.365
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(TABLE)
    return path


@pytest.mark.parametrize(
    ("cpu", "memory", "architecture", "capacity", "hourly"),
    [
        # 1 x 0.04 + 2 x 0.004, the address 0.005, the secrets 2 x 0.365 / 730 = 0.001.
        (1024, 2048, Architecture.X86_64, Capacity.ON_DEMAND, 0.054),
        # A quarter of 0.048; address and secrets have no discount.
        (1024, 2048, Architecture.X86_64, Capacity.SPOT, 0.018),
        (1024, 2048, Architecture.ARM64, Capacity.ON_DEMAND, 0.042),
        (256, 512, Architecture.ARM64, Capacity.ON_DEMAND, 0.015),
        (256, 512, Architecture.ARM64, Capacity.SPOT, 0.00825),
    ],
)
def test_an_hour_has_its_price(
    table: Path,
    cpu: int,
    memory: int,
    architecture: Architecture,
    capacity: Capacity,
    hourly: float,
) -> None:
    """should be task, address and secrets, with a discount on the task only"""
    prices = load_prices(table)
    assert prices.hourly(cpu, memory, architecture, capacity) == pytest.approx(hourly)
    lab = LabRecord(
        lab="demo",
        created_at=MADE,
        expires_at=MADE + timedelta(hours=10),
        cpu=cpu,
        memory=memory,
        architecture=architecture,
        capacity=capacity,
    )
    assert prices.lab_hourly(lab) == pytest.approx(hourly)
    assert prices.lab_so_far(lab, MADE) == 0
    assert prices.lab_so_far(lab, MADE + timedelta(minutes=90)) == pytest.approx(1.5 * hourly)
    assert prices.lab_so_far(lab, MADE - timedelta(hours=1)) == 0
    assert prices.lab_in_all(lab) == pytest.approx(10 * hourly)


def lab_of(hours: float) -> LabRecord:
    return LabRecord(lab="demo", created_at=MADE, expires_at=MADE + timedelta(hours=hours))


def test_the_report_compares_costs(table: Path) -> None:
    """should have each architecture on each capacity, and mark the lab's own"""
    report = load_prices(table).report(lab_of(2), MADE + timedelta(hours=1))
    hourly = {(c.architecture, c.capacity): c.hourly for c in report.choices}
    assert hourly == {
        (Architecture.X86_64, Capacity.SPOT): pytest.approx(0.018),
        (Architecture.X86_64, Capacity.ON_DEMAND): pytest.approx(0.054),
        # A quarter of 0.036.
        (Architecture.ARM64, Capacity.SPOT): pytest.approx(0.015),
        (Architecture.ARM64, Capacity.ON_DEMAND): pytest.approx(0.042),
    }
    (chosen,) = [c for c in report.choices if c.chosen]
    assert (chosen.architecture, chosen.capacity) == (Architecture.X86_64, Capacity.SPOT)
    assert report.hourly == report.so_far == pytest.approx(0.018)
    assert report.sources == ["https://prices.example/fargate"]


@pytest.mark.parametrize(
    ("hours", "day_and_night", "saved", "share"),
    [
        (2, 24, 22, 22 / 24),
        (24, 24, 0, 0),
        # The third day has begun: the other lab would run through that day too.
        (49, 72, 23, 23 / 72),
    ],
)
def test_the_end_saves_the_rest_of_the_days(
    table: Path, hours: float, day_and_night: float, saved: float, share: float
) -> None:
    """should compare with the same lab running day and night, on each day of its life"""
    report = load_prices(table).report(lab_of(hours), MADE)
    assert report.in_all == pytest.approx(hours * 0.018)
    assert report.day_and_night == pytest.approx(day_and_night * 0.018)
    assert report.saved == pytest.approx(saved * 0.018)
    assert report.saved_share == pytest.approx(share)
    assert report.month == pytest.approx(730 * 0.018)


def test_the_text_says_that_it_is_an_estimate(table: Path) -> None:
    """should give date and region of the prices with the sums: none is a bill"""
    report = load_prices(table).report(lab_of(2), MADE + timedelta(hours=1))
    assert cost_words(report) == {
        "Cost": "0.0180 USD an hour, 0.0180 so far, 0.0360 until its end",
        "Saved by its end": (
            "0.3960 USD (92%) against running day and night, which is 13.14 a month"
        ),
        "Prices": "an estimate from those of 2025-11-01, us-east-1",
    }
    assert cost_rows(report) == [
        {"USD an hour": "x86_64", "FARGATE_SPOT": "0.0180 (this lab)", "FARGATE": "0.0540"},
        {"USD an hour": "arm64", "FARGATE_SPOT": "0.0150", "FARGATE": "0.0420"},
    ]


def test_the_projects_table_knows_every_architecture() -> None:
    """should load, and have a price for each possible lab"""
    prices = load_prices(Settings().prices_path)
    for architecture in Architecture:
        spot, full = (
            prices.hourly(1024, 2048, architecture, capacity)
            for capacity in (Capacity.SPOT, Capacity.ON_DEMAND)
        )
        assert 0 < spot < full < 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("currency: USD\n", "", "currency"),
        ("sources: [https://prices.example/fargate]\n", "", "sources"),
        ("sources: [https://prices.example/fargate]", "sources: []", "sources"),
        ("[https://prices.example/fargate]", "[hearsay]", "sources.0"),
        ("vcpu_hour: 0.04,", "vcpu_hour: much,", "fargate.x86_64.vcpu_hour"),
        ("arm64:", "sparc:", "sparc"),
        ("  arm64: {vcpu_hour: 0.03, gb_hour: 0.003}\n", "", "arm64"),
        ("secret_month: 0.365", "secret_month: -1", "secret_month"),
        ("vcpu_hour: 0.04", "vcpu_hour: -0.04", "fargate.x86_64.vcpu_hour"),
        ("spot_discount: 0.75", "spot_discount: 75", "spot_discount"),
        ("spot_discount: 0.75", "spot_discount: -0.1", "spot_discount"),
        ("secret_month: 0.365", "secret_month: 0.365\nsecret_day: 1", "secret_day"),
        (TABLE, "", "prices.yaml"),
        (TABLE, "{", "not a price table"),
    ],
)
def test_a_fault_is_named(table: Path, old: str, new: str, said: str) -> None:
    """should name file and field, so that no lab gets a wrong price"""
    table.write_text(TABLE.replace(old, new))
    with pytest.raises(InvalidInputError) as caught:
        load_prices(table)
    assert said in caught.value.message
    assert str(table) in caught.value.message


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    """should be an error of the project's"""
    with pytest.raises(InvalidInputError, match=r"none\.yaml"):
        load_prices(tmp_path / "none.yaml")
