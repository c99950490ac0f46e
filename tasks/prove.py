"""Proves that a lab is up: every model answers, and every check of the lab passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import unmapped
from prefect.futures import PrefectFuture, wait

from lab.errors import PermanentError
from lab.models.catalog import Model
from lab.models.render import validation_cases
from lab.posture import Posture
from lab.report.model import ModelResult, Verdict
from tasks.draft import note_in_report
from tasks.futures import gather
from tasks.provision import Provisioned, save_apply_fingerprint, take_inventory
from tasks.rollout import RolledOut
from tasks.site import Site
from tasks.validate import check_model_list, validate_model
from tasks.verify import verify_lab


def prove_lab(
    lab: str, site: Site, live: RolledOut, made: Provisioned, models: list[Model]
) -> None:
    """Ask every model and check the whole lab, in parallel; the report then holds both.

    Raises the error of the check of the gateway's model list; else a PermanentError that names the
    models that failed, and after them the missed checks. On return the next up may skip Terraform
    if nothing has changed by then.
    """
    cases = validation_cases(models)
    listed = check_model_list.submit(lab, site, live.endpoint, cases)
    asked = validate_model.map(unmapped(lab), unmapped(site), unmapped(live.endpoint), cases)
    verified = verify_lab.submit(lab, site)
    inventory = take_inventory.submit(lab, site)
    require_proof(lab, listed, asked, verified)
    save_apply_fingerprint(lab, site, made, gather(inventory)[0])


def require_proof(
    lab: str,
    listed: PrefectFuture[Any],
    asked: Sequence[PrefectFuture[Any]],
    verified: PrefectFuture[Any],
) -> None:
    """Wait for all answers and note them in the report; raise an error for what failed."""
    wait([listed, *asked, verified])
    posture = verified.state.result(raise_on_failure=False)
    posture = posture if isinstance(posture, Posture) else None
    note_in_report(posture=posture)
    results: list[ModelResult] = gather(listed, *asked)[1:]
    note_in_report(models=results)
    _require_answers(results, posture)
    gather(verified)[0].raise_if_missed(lab)


def _require_answers(results: list[ModelResult], posture: Posture | None) -> None:
    """If any model failed, raise a PermanentError that names these models and the missed checks."""
    failed = [m for m in results if m.verdict is not Verdict.OK]
    if not failed:
        return
    verdicts = "; ".join(f"{m.alias}: {m.verdict}: {m.error}" for m in failed)
    misses = posture.misses if posture else ""
    also = f"\nand of its posture: {misses}" if misses else ""
    raise PermanentError(
        f"{len(failed)} of {len(results)} models failed: {verdicts}{also}",
        "The lab is up and serves the others. Check the account's access to these models.",
    )
