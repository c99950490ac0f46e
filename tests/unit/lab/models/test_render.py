"""One list, three outputs: the served models, the permitted models, and the questions."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml

from lab.image.recipe import GATEWAY
from lab.models.catalog import InferenceProfile, Model, ModelProbe, load_catalog
from lab.models.render import litellm_config, terraform_models, validation_cases
from lab.settings import Settings

CATALOG = load_catalog(Settings().catalog_path)
SUBSETS: list[list[Model]] = [
    CATALOG.models,
    CATALOG.choose(None),
    CATALOG.models[::-1],
    *[[m] for m in CATALOG.models],
    *[list(pair) for pair in itertools.combinations(CATALOG.models, 2)],
]
PROFILED = Model(
    alias="profiled",
    model_id="vendor.model-v1:0",
    provider="Vendor",
    inference_profile=InferenceProfile(
        id="us.vendor.model-v1:0", regions=["us-east-1", "us-west-2"]
    ),
)


def config(models: list[Model]) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(litellm_config(models))
    return read


@pytest.mark.parametrize("models", SUBSETS, ids=lambda models: ",".join(m.alias for m in models))
def test_the_outputs_have_the_same_models(models: list[Model]) -> None:
    """should serve, permit and ask the same aliases, and for each the same Bedrock ID"""
    served = {
        m["model_name"]: m["litellm_params"]["model"].removeprefix("bedrock/converse/")
        for m in config(models)["model_list"]
    }
    permitted = {
        alias: m["inference_profile_id"] or m["model_id"]
        for alias, m in terraform_models(models).items()
    }
    asked = {case.alias: case.model_id for case in validation_cases(models)}
    assert served == permitted == asked == {m.alias: m.invoked_id for m in models}
    assert list(served) == list(permitted) == list(asked) == [m.alias for m in models]


def test_config_is_the_same_bytes_for_the_same_models() -> None:
    """should not change the image tag while the models stay the same"""
    again = load_catalog(Settings().catalog_path)
    assert litellm_config(CATALOG.models) == litellm_config(again.models)
    assert litellm_config(CATALOG.models) != litellm_config(CATALOG.models[:-1])


def test_the_config_has_no_secret() -> None:
    """should name the environment variable of the key, and no credential, region or endpoint"""
    written = config(CATALOG.models)
    assert written["general_settings"] == {
        "master_key": "os.environ/LITELLM_MASTER_KEY",
        "custom_auth": "authentication.authenticate",
    }
    for served in written["model_list"]:
        assert set(served) == {"model_name", "litellm_params"}
        assert set(served["litellm_params"]) == {"model"}
    text = litellm_config(CATALOG.models)
    for word in ("aws_", "sk-", "AKIA", "api_key", "api_base", "http://", "us-east-1"):
        assert word not in text


def test_callers_are_authenticated_by_a_program_of_the_image() -> None:
    """should name a function of a program in the configuration's folder"""
    program, _, function = config(CATALOG.models)["general_settings"]["custom_auth"].partition(".")
    assert f"{program}.py" in GATEWAY.files
    assert f"def {function}(" in (GATEWAY.folder / f"{program}.py").read_text()


def test_one_callers_errors_block_a_model_for_nobody() -> None:
    """should not let LiteLLM pause a model after errors: each model has one deployment"""
    written = config(CATALOG.models)
    assert written["router_settings"] == {"disable_cooldowns": True}
    served = [model["model_name"] for model in written["model_list"]]
    assert len(served) == len(set(served))


def test_further_litellm_parameters_reach_the_model() -> None:
    """should pass on the parameters of the catalogue"""
    model = CATALOG.models[0].model_copy(update={"litellm": {"temperature": 0.5, "rpm": 10}})
    (served,) = config([model])["model_list"]
    assert served["litellm_params"]["temperature"] == 0.5
    assert served["litellm_params"]["rpm"] == 10


def test_profiles_have_their_regions() -> None:
    """should let Terraform permit the profile, and the model in every region of the profile"""
    assert terraform_models([PROFILED]) == {
        "profiled": {
            "model_id": "vendor.model-v1:0",
            "inference_profile_id": "us.vendor.model-v1:0",
            "regions": ["us-east-1", "us-west-2"],
        }
    }


def test_a_model_without_a_profile_needs_no_region() -> None:
    """should have the same shape, so that Terraform's type accepts both"""
    model = CATALOG.choose(["bedrock-llama"])[0]
    rendered = terraform_models([model])["bedrock-llama"]
    assert rendered["inference_profile_id"] is None
    assert rendered["regions"] == []


def test_cases_have_the_models_probe() -> None:
    """should ask each model the catalogue's question"""
    probe = ModelProbe(prompt="Say yes.", max_tokens=5)
    (case,) = validation_cases([CATALOG.models[0].model_copy(update={"probe": probe})])
    assert case.probe == probe
