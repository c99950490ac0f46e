"""``python -m bench``: measure everything, write the results down, and draw them."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import performance
from bench.context import Bench
from bench.harness import Measured, choose, result_rows, run
from bench.machine import commit, machine
from bench.rows import SERIES
from lab.errors import LabError
from workstation.setup import check_platform

#: After this many seconds each remaining series runs once, so that all ends within 40 minutes.
BUDGET = 32 * 60.0
#: The results of a partial or quick bench: figures that are not for the record.
PARTIAL = performance.RESULTS.with_name("partial.json")


def main(arguments: Sequence[str]) -> int:
    """Return exit code 0 if every row was measured, whether or not its aim is met."""
    options = _parse(arguments)
    if options.list:
        for one in SERIES:
            say("\n  ".join([one.name, *(row.name for row in one.rows)]), stamp=False)
        return 0
    try:
        chosen = choose(SERIES, options.only)
    except KeyError as unknown:
        sys.stderr.write(f"✗ there is no row {unknown}; --list names them\n")
        return 2
    # If it is ended from outside, it still removes what it made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    measured = Measured()
    try:
        check_platform()
        with Bench(say, quick=options.quick) as bench:
            what = {"commit": commit(), "machine": machine()}
            run(chosen, bench, say, quick=options.quick, budget=BUDGET, measured=measured)
    except LabError as error:
        sys.stderr.write(f"✗ {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; nothing is left behind, and nothing was written.\n")
        return 130
    series = [one for one, _ in chosen]
    wanted = {name for _, names in chosen for name in names}
    rows = [row for row in result_rows(series, measured) if row["name"] in wanted]
    _write(
        {**what, "rows": rows},
        _raw(series, measured, bench),
        partial=bool(options.only) or options.quick,
    )
    _show(rows, measured)
    return 1 if measured.failures or any(row["ours"] is None for row in rows) else 0


def say(text: str, *, stamp: bool = True) -> None:
    """A line of progress."""
    at = f"[{datetime.now():%H:%M:%S}] " if stamp else ""
    sys.stdout.write(f"{at}{text}\n")
    sys.stdout.flush()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a row or a series; may be given several times",
    )
    parser.add_argument(
        "--quick", action="store_true", help="measure every figure once, not for the record"
    )
    parser.add_argument("--list", action="store_true", help="list the series and their rows")
    return parser.parse_args(arguments)


def _raw(series: Sequence[Any], measured: Measured, bench: Bench) -> dict[str, Any]:
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "quick": bench.quick,
        "rows": {
            row.name: {
                "note": row.note,
                "aim_of": row.aim.of if row.aim else None,
                "figures": measured.figures.get(row.name, {}),
            }
            for one in series
            for row in one.rows
        },
        "seconds": measured.seconds,
        "failures": [asdict(failure) for failure in measured.failures],
        "details": bench.details,
    }


def _write(results: dict[str, Any], raw: dict[str, Any], *, partial: bool) -> None:
    if partial:
        _write_atomic(PARTIAL, {**results, "raw": raw})
        say(f"Written: {PARTIAL}")
        return
    _write_atomic(performance.RAW, raw)
    _write_atomic(performance.RESULTS, results)
    performance.main()
    say(f"Written: {performance.RESULTS}, {performance.RAW} and {performance.PAGE}")


def _write_atomic(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def _show(rows: list[dict[str, Any]], measured: Measured) -> None:
    width = max(len(row["name"]) for row in rows)
    signs = {True: "met", False: "MISSED", None: ""}
    say(f"{'':{width}}  {'reference':>10} {'ours':>10} {'ratio':>7} {'aim':>6}", stamp=False)
    for row in rows:
        figures = [row[name] for name in ("reference", "ours", "ratio", "aim")]
        shown = ["-" if f is None else f"{f:.4g}" for f in figures]
        say(
            f"{row['name']:{width}}  {shown[0]:>10} {shown[1]:>10} {shown[2]:>7} {shown[3]:>6} "
            f"{signs[row['met']]} {row['unit'] if row['met'] is None else ''}",
            stamp=False,
        )
    for failure in measured.failures:
        say(
            f"FAILED {failure.series}, {failure.side}, run {failure.run}: {failure.said}",
            stamp=False,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
