"""Times the validation of models as ``lab-up`` does it. Run as a process, in Prefect's environment.

Usage: python -m bench.validation_run LAB ENDPOINT ALIAS...

ENDPOINT is the JSON of a :class:`lab.endpoint.Endpoint`.
"""

from __future__ import annotations

import json
import sys
import time

import openai  # noqa: F401  # A run of a deployment has it from the start: see decision 0025.
from prefect import flow, unmapped

from flows.lab_up import lab_up
from lab.endpoint import Endpoint
from lab.models.catalog import ModelProbe
from lab.models.render import ValidationCase
from lab.report.model import Verdict
from tasks.futures import gather
from tasks.site import open_site
from tasks.validate import validate_model


@flow(name="bench-validation", task_runner=lab_up.task_runner, persist_result=False)
def validate(lab: str, endpoint: Endpoint, aliases: list[str]) -> float:
    """The seconds until every model has answered. Raises ValueError if one did not."""
    cases = [ValidationCase(alias=a, model_id=a, probe=ModelProbe()) for a in aliases]
    with open_site() as site:
        began = time.monotonic()
        results = validate_model.map(unmapped(lab), unmapped(site), unmapped(endpoint), cases)
        said = gather(*results)
        seconds = time.monotonic() - began
    bad = [f"{r.alias}: {r.error}" for r in said if r.verdict is not Verdict.OK]
    if bad:
        raise ValueError("; ".join(bad))
    return seconds


if __name__ == "__main__":
    took = validate(sys.argv[1], Endpoint.model_validate_json(sys.argv[2]), sys.argv[3:])
    sys.stdout.write(f"\n{json.dumps({'seconds': took})}\n")
