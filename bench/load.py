"""Asks one HTTP address the same question again and again, in parallel, and times the answers.

Exists because a client that is slower than what it measures would measure itself. Therefore it runs
as a process of its own, keeps its connections, and reads only an answer's status and its end. It
may be used only to measure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

from lab.errors import PermanentError
from lab.settings import ROOT

#: The environment variable with the question for the process: a question has a key in it.
QUESTION = "BENCH_QUESTION"
SPARE_SECONDS = 120.0


@dataclass(frozen=True)
class Question:
    """A POST of ``body`` to ``url``. ``ca`` is the authority to trust, for ``name``."""

    url: str
    body: str
    key: str = field(default="", repr=False)
    ca: str = ""
    name: str = ""

    def request(self) -> bytes:
        """The bytes to send."""
        where = urlsplit(self.url)
        body = self.body.encode()
        head = (
            f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\n"
            f"Authorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(frozen=True)
class Timed:
    """The result: times in milliseconds, and whole answers per second."""

    requests: int
    per_second: float
    p50: float
    p99: float
    #: Until the first piece of an answer's body.
    first_p50: float
    first_p99: float


def load(question: Question, at_once: int, seconds: float) -> Timed:
    """Ask for ``seconds``, ``at_once`` at a time, from a process of its own.

    Raises PermanentError if an answer was an error.
    """
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", str(at_once), str(seconds)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), QUESTION: json.dumps(asdict(question))},
        capture_output=True,
        text=True,
        timeout=seconds + SPARE_SECONDS,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise PermanentError(f"{question.url} could not be measured: {last}")
    return Timed(**json.loads(done.stdout))


async def _ask(
    question: Question, times: list[tuple[float, float]], until: float, trust: ssl.SSLContext | None
) -> None:
    where = urlsplit(question.url)
    reader, writer = await asyncio.open_connection(
        where.hostname, where.port, ssl=trust, server_hostname=question.name or None
    )
    request = question.request()
    try:
        while (began := time.perf_counter()) < until:
            writer.write(request)
            first = await _read_answer(reader)
            times.append((first - began, time.perf_counter() - began))
    finally:
        writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> float:
    """The time when the first piece of the body came; on return the whole answer has come."""
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ValueError(head.split(b"\r\n")[0].decode())
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.partition(b":")[2]))
            return time.perf_counter()
    first = 0.0
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
        first = first or time.perf_counter()
    await reader.readline()
    return first


async def _measure(question: Question, at_once: int, seconds: float) -> Timed:
    trust = None
    if question.ca:
        trust = ssl.create_default_context(cadata=question.ca)
    times: list[tuple[float, float]] = []
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(_ask(question, times, began + seconds, trust))
    took = time.perf_counter() - began
    firsts, wholes = ([1000 * value for value in column] for column in zip(*times, strict=True))
    return Timed(
        requests=len(times),
        per_second=len(times) / took,
        p50=statistics.median(wholes),
        p99=_percentile(wholes),
        first_p50=statistics.median(firsts),
        first_p99=_percentile(firsts),
    )


def _percentile(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


def main() -> None:
    """Measure the question from the environment, and print the result."""
    parser = argparse.ArgumentParser(prog="python -m bench.load")
    parser.add_argument("at_once", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    question = Question(**json.loads(os.environ[QUESTION]))
    timed = asyncio.run(_measure(question, options.at_once, options.seconds))
    sys.stdout.write(json.dumps(asdict(timed)))


if __name__ == "__main__":
    main()
