"""What Bedrock says about the models of a lab, and the agreements that some of them need.

Agreements belong to the account, not to a lab: the deployer makes them before anything that costs,
and they outlive every lab. The lab's own role may call models and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

from botocore.exceptions import ClientError

from adapters.aws.errors import translate_aws_errors
from adapters.aws.session import Cloud
from adapters.aws.user_agent import propagate_stage
from lab.durations import format_duration
from lab.errors import DeadlineError, PermanentError, TransientError
from lab.models.catalog import Model
from lab.models.lifecycle import Agreement, ModelFacts
from lab.waiting import wait_for

if TYPE_CHECKING:
    from mypy_boto3_bedrock import BedrockClient

#: Bedrock's error codes for an ID that it does not know, or no longer knows.
_UNLISTED = {"ResourceNotFoundException", "ValidationException"}
_AVAILABILITY = "bedrock:GetFoundationModelAvailability"
_BY_HAND = "Subscribe in Bedrock's console, or name other models."


def ask_models(cloud: Cloud, models: list[Model]) -> list[ModelFacts]:
    """What Bedrock says about each of ``models`` to this account in this region, in order.

    The models are asked about in parallel, in one to five calls each; nothing is changed. Raises
    PermanentError that names an action which is not allowed: a missing answer is not a yes.
    """
    bedrock = _client(cloud)
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(propagate_stage(lambda model: _ask(bedrock, model)), models))


def subscribe(cloud: Cloud, model_id: str) -> None:
    """Ask for the account's agreement to the public offer of ``model_id``.

    On return it is on its way, see :func:`await_agreements`. If somebody else has already asked
    for it, that is success.
    """
    bedrock = _client(cloud)
    doing = f"subscribing to {model_id}"
    # A person with an offer's token and documents can agree to it: neither is ever logged.
    with translate_aws_errors(f"{doing} (bedrock:ListFoundationModelAgreementOffers)"):
        offers = bedrock.list_foundation_model_agreement_offers(
            modelId=model_id, offerType="PUBLIC"
        )["offers"]
    if not offers:
        raise PermanentError(f"{doing}: Bedrock has no offer for it any more", _BY_HAND)
    rights = "bedrock:CreateFoundationModelAgreement, aws-marketplace:Subscribe, ViewSubscriptions"
    with translate_aws_errors(f"{doing} ({rights})"):
        try:
            bedrock.create_foundation_model_agreement(
                modelId=model_id, offerToken=offers[0]["offerToken"]
            )
        except bedrock.exceptions.ConflictException:
            return


def await_agreements(
    cloud: Cloud, model_ids: list[str], *, deadline: float, log: Callable[[str], None]
) -> None:
    """Wait until the account may call each of ``model_ids``, whose agreements are on their way.

    Raises PermanentError as soon as one has failed, and DeadlineError after ``deadline`` seconds.
    May be called again, by another run too.
    """
    bedrock = _client(cloud)
    missing = dict.fromkeys(model_ids, Agreement.NOT_AVAILABLE)

    def check() -> bool | None:
        for model_id, before in list(missing.items()):
            try:
                with translate_aws_errors(
                    f"asking Bedrock whether we may call {model_id} ({_AVAILABILITY})"
                ):
                    answer = bedrock.get_foundation_model_availability(modelId=model_id)
            except TransientError as error:
                log(error.message)
                continue
            status = Agreement(answer["agreementAvailability"]["status"])
            if status is Agreement.AVAILABLE and answer["entitlementAvailability"] == "AVAILABLE":
                log(f"the account may call {model_id} now")
                del missing[model_id]
                continue
            # If an agreement was on its way and is gone, the Marketplace has ended it.
            ended = before is Agreement.PENDING and status is Agreement.NOT_AVAILABLE
            if ended or status is Agreement.ERROR:
                said = answer["agreementAvailability"].get("errorMessage", "Bedrock says no more")
                raise PermanentError(
                    f"the agreement to {model_id} failed: {said}",
                    "Look at the account's payment method, then run the command again.",
                )
            missing[model_id] = status
        return None if missing else True

    try:
        wait_for(
            f"the agreement to {', '.join(model_ids)}",
            check,
            deadline=deadline,
            log=log,
            first_pause=1.0,
            longest_pause=10.0,
        )
    except DeadlineError as error:
        raise DeadlineError(
            f"the agreement to {', '.join(missing)} did not come within "
            f"{format_duration(deadline)}; nothing was built",
            "It may still come: run the command again, or raise LAB_SUBSCRIPTION_DEADLINE.",
        ) from error


def _client(cloud: Cloud) -> BedrockClient:
    return cast("BedrockClient", cloud.client("bedrock"))


def _ask(bedrock: BedrockClient, model: Model) -> ModelFacts:
    with translate_aws_errors(f"asking Bedrock for {model.model_id} (bedrock:GetFoundationModel)"):
        try:
            details = bedrock.get_foundation_model(modelIdentifier=model.model_id)["modelDetails"]
        except ClientError as error:
            if error.response["Error"]["Code"] in _UNLISTED:
                return ModelFacts(listed=False)
            raise
    with translate_aws_errors(
        f"asking Bedrock whether we may call {model.model_id} ({_AVAILABILITY})"
    ):
        try:
            answer = bedrock.get_foundation_model_availability(modelId=model.model_id)
        except ClientError as error:
            if error.response["Error"]["Code"] in _UNLISTED:
                return ModelFacts(listed=False)
            raise
    agreement = answer["agreementAvailability"]
    missing = agreement["status"] == Agreement.NOT_AVAILABLE
    offered = missing and _is_offered(bedrock, model.model_id)
    regions = _profile_regions(bedrock, model) if model.inference_profile else None
    life = details.get("modelLifecycle", {"status": "ACTIVE"})
    kinds: list[str] = list(details.get("inferenceTypesSupported", []))
    return ModelFacts(
        legacy=life["status"] == "LEGACY",
        legacy_at=life.get("legacyTime"),
        extended_at=life.get("publicExtendedAccessTime"),
        ends_at=life.get("endOfLifeTime"),
        on_demand=not kinds or "ON_DEMAND" in kinds,
        profile_listed=regions is not None if model.inference_profile else None,
        profile_regions=regions or [],
        in_region=answer["regionAvailability"] == "AVAILABLE",
        authorized=answer["authorizationStatus"] == "AUTHORIZED",
        entitled=answer["entitlementAvailability"] == "AVAILABLE",
        agreement=Agreement(agreement["status"]),
        agreement_error=agreement.get("errorMessage"),
        offered=offered,
        use_case_missing=offered and _use_case_missing(bedrock, model),
    )


def _is_offered(bedrock: BedrockClient, model_id: str) -> bool:
    """Whether there is something to agree to: not every provider has terms for its models."""
    with translate_aws_errors(
        f"looking for offers of {model_id} (bedrock:ListFoundationModelAgreementOffers)"
    ):
        try:
            found = bedrock.list_foundation_model_agreement_offers(
                modelId=model_id, offerType="PUBLIC"
            )
        except bedrock.exceptions.ResourceNotFoundException:
            return False
    return bool(found["offers"])


def _use_case_missing(bedrock: BedrockClient, model: Model) -> bool:
    """Whether the provider is one that wants the account's use case first, and has none."""
    if not model.model_id.startswith("anthropic."):
        return False
    with translate_aws_errors(
        "looking for the account's use case form (bedrock:GetUseCaseForModelAccess)"
    ):
        try:
            bedrock.get_use_case_for_model_access()
        except bedrock.exceptions.ResourceNotFoundException:
            return True
    return False


def _profile_regions(bedrock: BedrockClient, model: Model) -> list[str] | None:
    """Every region that the model's profile sends requests to; ``None`` if there is no profile."""
    assert model.inference_profile
    profile = model.inference_profile.id
    with translate_aws_errors(f"looking for the profile {profile} (bedrock:GetInferenceProfile)"):
        try:
            found = bedrock.get_inference_profile(inferenceProfileIdentifier=profile)
        except ClientError as error:
            if error.response["Error"]["Code"] in _UNLISTED:
                return None
            raise
    # arn:aws:bedrock:REGION::foundation-model/ID; a global profile also has one without a region.
    regions = {part["modelArn"].split(":")[3] for part in found["models"] if "modelArn" in part}
    return sorted(regions - {""})
