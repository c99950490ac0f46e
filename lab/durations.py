"""Lengths of time as people write them: ``45m``, ``1h30m``, ``2d``. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from lab.errors import InvalidInputError

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
DURATION_PATTERN = r"^(?=\d)(?:\d+d)?(?:\d+h)?(?:\d+m)?(?:\d+s)?$"


def parse_duration(text: str) -> timedelta:
    """Read ``1d2h30m15s`` (any part may be left out); raises InvalidInputError for all else."""
    try:
        if not re.fullmatch(DURATION_PATTERN, text, re.ASCII):
            raise ValueError
        parts = re.findall(r"(\d+)([dhms])", text)
        return timedelta(seconds=sum(int(n) * _UNITS[u] for n, u in parts))
    except (ValueError, OverflowError) as error:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise InvalidInputError(
            f"{shown!r} is not a length of time: write days, hours, minutes and seconds such as "
            "'45m', '1h30m' or '2d'",
            "Give a whole number and a unit of d, h, m or s.",
        ) from error


def format_duration(value: timedelta | float) -> str:
    """``value`` (or seconds) in the form that :func:`parse_duration` reads, to whole seconds."""
    seconds = round(value.total_seconds() if isinstance(value, timedelta) else value)
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    parts: list[str] = []
    for unit, size in _UNITS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def now() -> datetime:
    """This moment in UTC, to whole seconds, as records and tags have it."""
    return datetime.now(UTC).replace(microsecond=0)


def to_rfc3339(moment: datetime) -> str:
    """``moment`` as ``2030-01-31T12:00:00Z``: the one spelling in tags, records and Terraform."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
