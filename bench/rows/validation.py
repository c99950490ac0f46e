"""Asking every model whether it answers: through the flow's own tasks, against a stand-in.

The stand-in is a gateway whose models all take the same time except one, which takes four times as
long. The seed asks one after another, once each; the lab asks all in parallel, each twice.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from bench.context import Bench
from bench.harness import Aim, Row, Series, single
from bench.seed_sequence import ask_in_turn
from bench.stubs import SLOW, stub
from lab import names
from lab.certificate import make_certificate
from lab.durations import now
from lab.endpoint import Endpoint
from lab.errors import PermanentError
from lab.settings import ROOT
from workstation.prefect import prefect_environment

DELAY = 0.25
#: This lab has a key and a certificate, and nothing else.
LAB = "bench-stand-in"
NUMBERS = (4, 16, 64)
#: The slowest model is asked for a whole and for a streamed answer.
SLOWEST = 2 * 4 * DELAY


def models(number: int) -> list[str]:
    """``number`` aliases, the last of them slow."""
    return [f"model-{n}" for n in range(number - 1)] + [f"model{SLOW}"]


def _ours(number: int) -> Callable[[Bench], float]:
    def measure(bench: Bench) -> float:
        secretsmanager = bench.stack.cloud.client("secretsmanager")
        key = f"sk-{secrets.token_urlsafe(24)}"
        secretsmanager.create_secret(Name=names.key_secret(LAB), SecretString=key)
        at = now()
        shown = make_certificate(names.tls_name(LAB), at, at + timedelta(hours=1))
        try:
            with stub(delay=DELAY, pem=shown.pem) as url:
                where = Endpoint(url=url, tls_name=names.tls_name(LAB), ca=shown.trust.ca)
                arguments = [LAB, where.model_dump_json(), *models(number)]
                done = subprocess.run(
                    [sys.executable, "-m", "bench.validation_run", *arguments],
                    cwd=ROOT,
                    env=prefect_environment(),
                    capture_output=True,
                    text=True,
                    timeout=300,
                    check=False,
                )
        finally:
            secretsmanager.delete_secret(
                SecretId=names.key_secret(LAB), ForceDeleteWithoutRecovery=True
            )
        if done.returncode != 0:
            raise PermanentError(
                f"the validation ended with {done.returncode}: {done.stderr[-2000:]}"
            )
        return float(json.loads(done.stdout.splitlines()[-1])["seconds"])

    return measure


def _in_turn(number: int) -> Callable[[Bench], float]:
    def measure(bench: Bench) -> float:
        with stub(delay=DELAY) as url:
            began = time.monotonic()
            ask_in_turn(f"{url}/v1", "none", models(number))
            return time.monotonic() - began

    return measure


SERIES: tuple[Series[Bench], ...] = tuple(
    single(
        Row(
            f"validating {number} models",
            "s",
            Aim(2 * SLOWEST, "ours"),
            f"Aim: twice what the slowest model takes for its two answers, {SLOWEST:g} s.",
        ),
        _ours(number),
        _in_turn(number),
    )
    for number in NUMBERS
)
