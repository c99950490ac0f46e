"""The catalogue's three projections: LiteLLM's configuration, Terraform's models, probes. Pure.

``tests/unit/lab/models/test_render.py`` checks that the three have the same aliases.
"""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from lab.models.catalog import Model, ModelProbe


class ValidationCase(BaseModel):
    """One model to ask, and what to ask it."""

    model_config = ConfigDict(frozen=True)

    alias: str
    model_id: str
    probe: ModelProbe


def litellm_config(models: list[Model]) -> str:
    """LiteLLM's configuration file for ``models``: equal input gives equal bytes.

    It holds no secret: the key and the region come from the task's environment. The image's
    ``docker/gateway/authentication.py`` identifies the caller.
    """
    config: dict[str, Any] = {
        "model_list": [
            {
                "model_name": model.alias,
                # Bedrock's Converse serves every model in one form; without the word, LiteLLM uses
                # some models' own forms, and not all of those count the prompt's tokens.
                "litellm_params": {
                    "model": f"bedrock/converse/{model.invoked_id}",
                    **model.litellm,
                },
            }
            for model in models
        ],
        "litellm_settings": {
            # Callers name OpenAI parameters that a model may lack; the lab is for comparing models.
            "drop_params": True,
            "telemetry": False,
        },
        # Each model has one deployment. A cooldown after errors, perhaps those of one caller,
        # would refuse the model to all.
        "router_settings": {"disable_cooldowns": True},
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            "custom_auth": "authentication.authenticate",
        },
    }
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100)


def terraform_models(models: list[Model]) -> dict[str, dict[str, Any]]:
    """Terraform's ``models`` variable: what the task role must be allowed to invoke, by alias."""
    return {
        model.alias: {
            "model_id": model.model_id,
            "inference_profile_id": model.inference_profile.id if model.inference_profile else None,
            "regions": model.inference_profile.regions if model.inference_profile else [],
        }
        for model in models
    }


def validation_cases(models: list[Model]) -> list[ValidationCase]:
    """One case per model, in the order of ``models``."""
    return [ValidationCase(alias=m.alias, model_id=m.invoked_id, probe=m.probe) for m in models]
