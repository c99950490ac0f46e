"""Lengths of time are written in the form in which they are read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from lab.durations import format_duration, now, parse_duration, to_rfc3339
from lab.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("15s", 15), ("45m", 2700), ("1h30m", 5400), ("2d", 172800), ("1d2h3m4s", 93784)],
)
def test_reads_each_unit(text: str, seconds: int) -> None:
    """should sum days, hours, minutes and seconds"""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "m", "5x", "1m1h", "1m1m", "-5m", "5 m", "5m\n", "\uff14m"]
)
def test_refuses_everything_else(text: str) -> None:
    """should name the text that is no length of time"""
    with pytest.raises(InvalidInputError) as caught:
        parse_duration(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize("digits", [12, 5000])
def test_refuses_a_length_beyond_all_calendars(digits: int) -> None:
    """should be a refused value, not a crash, however many digits it has"""
    with pytest.raises(InvalidInputError):
        parse_duration("9" * digits + "d")


@pytest.mark.parametrize("text", ["0s", "1s", "59s", "1m", "1h30m", "1d", "2d3h4m5s"])
def test_writes_what_it_reads(text: str) -> None:
    """should be the same text after reading and writing"""
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(90, "1m30s"), (0.4, "0s"), (59.6, "1m"), (-90, "-1m30s"), (timedelta(hours=24), "1d")],
)
def test_writes_seconds_and_lengths(value: float | timedelta, text: str) -> None:
    """should round to whole seconds and keep the sign"""
    assert format_duration(value) == text


def test_moments_have_one_spelling() -> None:
    """should be in UTC to the second, whatever time zone the moment has"""
    moment = datetime(2030, 1, 31, 13, 0, 0, 999, tzinfo=timezone(timedelta(hours=1)))
    assert to_rfc3339(moment) == "2030-01-31T12:00:00Z"


def test_now_has_no_fraction_and_a_zone() -> None:
    """should be fit for tags and records"""
    assert now().tzinfo is UTC
    assert now().microsecond == 0
