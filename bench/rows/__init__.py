"""Every series of the bench, in the order in which they run.

Those that need the stack come first; nothing else runs during the others.
"""

from __future__ import annotations

from bench.context import Bench
from bench.harness import Series
from bench.rows import fleet, life, load, start, validation

SERIES: tuple[Series[Bench], ...] = (
    life.SERIES,
    *validation.SERIES,
    fleet.SERIES,
    *start.SERIES,
    *load.SERIES,
)
