"""Every model is asked, as an application would ask it. A failure is a verdict, not a crash."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

from adapters.aws.session import Cloud
from adapters.gateway.client import ask_model, list_models, open_client
from lab.endpoint import Endpoint
from lab.errors import PermanentError
from lab.lazily import Lazily
from lab.models.render import ValidationCase
from lab.report.model import ModelResult, Verdict
from lab.settings import Settings
from tasks.site import open_cloud
from tasks.stage import run_log, stage

if TYPE_CHECKING:
    from openai import OpenAI


def prepare_to_ask() -> None:
    """Begin to import the client, which takes long, beside stages that wait for other programs."""
    Lazily.begin("openai")


@stage("validate", run_name="list-models-{lab}")
def check_model_list(
    lab: str, settings: Settings, endpoint: Endpoint, secret: str, cases: list[ValidationCase]
) -> None:
    """Raise PermanentError unless the gateway lists exactly the lab's models."""
    client = _client(settings, endpoint, secret)
    listed = sorted(list_models(client))
    wanted = sorted(case.alias for case in cases)
    if listed != wanted:
        raise PermanentError(
            f"the gateway of {lab} lists {', '.join(listed) or 'no model'}; it should list "
            f"{', '.join(wanted)}",
            "The running image may be another lab's: bring the lab up again.",
        )


@stage("validate", run_name="validate-{case.alias}")
def validate_model(
    settings: Settings, endpoint: Endpoint, secret: str, case: ValidationCase
) -> ModelResult:
    """What the model of ``case`` answered, whole and streamed."""
    client = _client(settings, endpoint, secret)
    result = ask_model(client, case)
    if result.verdict is Verdict.OK:
        run_log()(f"{case.alias}: ok, first token after {result.first_token_ms:.0f} ms")
    else:
        run_log()(f"{case.alias}: {result.verdict}: {result.error}")
    return result


def _client(settings: Settings, endpoint: Endpoint, secret: str) -> OpenAI:
    """One client for all models of a run: each would read key and certificate anew."""
    # Who comes while it is made waits for it.
    with _MAKING:
        return _made(open_cloud(settings), endpoint.model_dump_json(), secret)


_MAKING = Lock()


@lru_cache(maxsize=1)
def _made(cloud: Cloud, endpoint: str, secret: str) -> OpenAI:
    return open_client(Endpoint.model_validate_json(endpoint), cloud.gateway_key(secret))
