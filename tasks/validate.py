"""Every model is asked, as an application would ask it. A failure is a verdict, not a crash."""

from __future__ import annotations

from lab.adapters.gateway import ask_model, list_models, open_client
from lab.endpoint import Endpoint
from lab.errors import PermanentError
from lab.lazily import Lazily
from lab.render import ValidationCase
from lab.report import ModelResult, Verdict
from lab.settings import Settings
from tasks.cloud import open_cloud
from tasks.stages import run_log, stage


def prepare_to_ask() -> None:
    """Begin to import the client, which takes long, beside stages that wait for other programs."""
    Lazily.begin("openai")


@stage("validate", run_name="list-models-{lab}")
def check_model_list(
    lab: str, settings: Settings, endpoint: Endpoint, secret: str, cases: list[ValidationCase]
) -> None:
    """Raise PermanentError unless the gateway lists exactly the lab's models."""
    with open_client(endpoint, open_cloud(settings).gateway_key(secret)) as client:
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
    with open_client(endpoint, open_cloud(settings).gateway_key(secret)) as client:
        result = ask_model(client, case)
    if result.verdict is Verdict.OK:
        run_log()(f"{case.alias}: ok, first token after {result.first_token_ms:.0f} ms")
    else:
        run_log()(f"{case.alias}: {result.verdict}: {result.error}")
    return result
