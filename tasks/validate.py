"""Asks every model as an application would. A failure is a verdict, not a crash."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock

from openai import OpenAI

from adapters.aws.secrets import Secrets
from adapters.gateway.client import ask_model, list_models, open_client
from lab import names
from lab.endpoint import Endpoint
from lab.errors import PermanentError
from lab.models.render import ValidationCase
from lab.report.model import ModelResult, Verdict
from tasks.site import Site
from tasks.stage import run_log, stage


@stage("validate", run_name="list-models-{lab}")
def check_model_list(lab: str, site: Site, endpoint: Endpoint, cases: list[ValidationCase]) -> None:
    """Raise PermanentError unless the gateway lists exactly the lab's models."""
    client = _client(lab, site, endpoint)
    listed = sorted(list_models(client))
    wanted = sorted(case.alias for case in cases)
    if listed != wanted:
        raise PermanentError(
            f"the gateway of {lab} lists {', '.join(listed) or 'no model'}; it should list "
            f"{', '.join(wanted)}",
            "The running image may be another lab's: bring the lab up again.",
        )


@stage("validate", run_name="validate-{case.alias}")
def validate_model(lab: str, site: Site, endpoint: Endpoint, case: ValidationCase) -> ModelResult:
    """What the model of ``case`` answered, whole and streamed."""
    client = _client(lab, site, endpoint)
    result = ask_model(client, case)
    if result.verdict is Verdict.OK:
        run_log()(f"{case.alias}: ok, first token after {result.first_token_ms:.0f} ms")
    else:
        run_log()(f"{case.alias}: {result.verdict}: {result.error}")
    return result


def _client(lab: str, site: Site, endpoint: Endpoint) -> OpenAI:
    """One client for all models of a run, so that key and certificate are read only once."""
    # A task that comes while the client is made waits for it.
    with _MAKING:
        return _make_client(site.secrets, endpoint.model_dump_json(), names.key_secret(lab))


_MAKING = Lock()


@lru_cache(maxsize=1)
def _make_client(secrets: Secrets, endpoint: str, key_secret: str) -> OpenAI:
    return open_client(Endpoint.model_validate_json(endpoint), secrets.require(key_secret))
