"""Terraform's stages: the foundation that labs share, and each lab itself."""

from __future__ import annotations

import math
import os
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.aws.sweep import Leftover, Sweeper
from adapters.terraform import TerraformRoot
from lab import names
from lab.applied import Applied, fingerprint
from lab.certificate import Trust
from lab.durations import to_rfc3339
from lab.errors import LabError
from lab.models.render import terraform_models
from lab.plan import Checked, ImagePlan, Place
from lab.record import LabRecord
from lab.settings import ROOT, Settings
from lab.spec import LabSpec
from tasks.certificate import certify
from tasks.site import open_cloud
from tasks.stage import run_log, stage, timed

#: What Terraform calls the rules that let hosts in, and the secret's value.
FIREWALL_RULES = "aws_vpc_security_group_ingress_rule.gateway"
KEY = "aws_secretsmanager_secret_version.this"
#: Variables that are moved on a live lab without Terraform, or heeded at its first apply only.
_MOVED = {"expires_at", "desired_count"}


class Provisioned(BaseModel):
    """What Terraform made of a lab, as far as later stages need it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cluster_name: str
    service_name: str
    task_definition_arn: str
    log_group_name: str
    secret_name: str
    trust: Trust
    #: Of the code and values that made it, and Terraform's outputs; see lab.applied.
    fingerprint: str = ""
    outputs: dict[str, Any] = Field(default_factory=dict)


@stage("foundation", run_name="foundation-{place.region}")
def provision_foundation(settings: Settings, place: Place) -> None:
    """On return the image repository exists as the code wants it. May run at once for many labs.

    Where it is there and neither code nor state have changed since the last apply, nothing is
    applied.
    """
    cloud, variables = open_cloud(settings), _foundation_variables()
    root = _root("foundation", names.FOUNDATION_STATE_KEY, settings, place)
    wanted = fingerprint(root.module, variables)
    known = _applied(place, names.FOUNDATION_APPLIED_KEY, settings)
    state = cloud.object_version(place.bucket, names.FOUNDATION_STATE_KEY)
    if known and known.still_holds(wanted, state) and cloud.has_repository(names.repository_name()):
        run_log()("the foundation is as it was applied last")
        return
    root.up(variables)
    _remember(place, names.FOUNDATION_APPLIED_KEY, names.FOUNDATION_STATE_KEY, wanted, settings)


@stage("provision", run_name="provision-{spec.lab}")
def provision_lab(
    spec: LabSpec, settings: Settings, checked: Checked, image: ImagePlan, record: LabRecord
) -> Provisioned:
    """On return everything of the lab but a running task of the new image exists.

    The service starts at once only if its image is in the registry already. Where the last up got
    to its end, and code, values, state and everything of the lab are as it left them, nothing is
    applied. Whoever calls this vouches with :func:`vouch_for_lab` once the lab was found good.
    """
    cloud = open_cloud(settings)
    variables = {
        "lab": spec.lab,
        "owner": spec.owner,
        "allowed_cidrs": checked.cidrs,
        "image": image.reference,
        "repository_arn": checked.place.repository_arn,
        "architecture": checked.architecture.ecs,
        "cpu": spec.cpu,
        "memory": spec.memory,
        "capacity_provider": spec.capacity.value,
        "gateway_port": names.GATEWAY_PORT,
        "desired_count": 1 if image.pushed_digest else 0,
        "models": terraform_models(checked.models),
        "container_environment": settings.container_environment,
        "expires_at": to_rfc3339(record.expires_at),
        "key_version": record.key_version,
        "stop_grace_minutes": math.ceil(settings.stop_grace.total_seconds() / 60),
        "role_boundary_arn": checked.place.policy_arn(settings.role_boundary),
        "cluster_exists": True,
    }
    certificate = certify(spec.lab, settings, checked.place)
    variables["tls_version"] = certificate.trust.version
    root = lab_root(spec.lab, settings, checked.place)
    wanted = fingerprint(root.module, {k: v for k, v in variables.items() if k not in _MOVED})
    outputs = _outputs_of_last(spec.lab, wanted, settings, checked.place)
    if outputs is None:
        # Faster than Terraform makes one, which takes it over: see terraform/lab/gateway.tf.
        cluster_tags = record.tags | {names.TAG_EXPIRES_AT: to_rfc3339(record.expires_at)}
        cloud.ensure_cluster(names.resource_name(spec.lab), cluster_tags)
        outputs = root.up(variables, secrets={"tls_pem": certificate.pem})
    else:
        run_log()(f"lab {spec.lab} is as the last up left it: nothing to apply")
        cloud.tag_end(spec.lab, record.expires_at)
    return Provisioned.model_validate(
        {**outputs, "trust": certificate.trust, "fingerprint": wanted, "outputs": outputs}
    )


@stage("verify", run_name="take-inventory-{lab}")
def take_inventory(lab: str, settings: Settings) -> list[str] | None:
    """What there is of the lab, for :func:`vouch_for_lab`; ``None`` where that cannot be seen."""
    try:
        return _inventory(Sweeper(open_cloud(settings)).look(lab)[1])
    except LabError as error:
        run_log()(f"what there is of lab {lab} cannot be seen: {error.message}")
        return None


def vouch_for_lab(
    lab: str, made: Provisioned, inventory: list[str] | None, settings: Settings, place: Place
) -> None:
    """Let the next up of ``lab`` leave Terraform out, if it then wants the same of the same.

    For an up at its end. What goes wrong here is told, and costs the next up its time only.
    """
    if inventory is None:
        return
    try:
        with timed("verify"):
            _remember(
                place,
                names.lab_applied_key(lab),
                names.lab_state_key(lab),
                made.fingerprint,
                settings,
                outputs=made.outputs,
                inventory=inventory,
            )
    except LabError as error:
        run_log()(f"the next up will apply everything again: {error.message}")


def _outputs_of_last(
    lab: str, wanted: str, settings: Settings, place: Place
) -> dict[str, Any] | None:
    """The outputs of the last up's apply, if another one would change nothing.

    It is asked for once: an up that then fails is followed by one that applies everything.
    """
    cloud, key = open_cloud(settings), names.lab_applied_key(lab)
    known = _applied(place, key, settings)
    if known is None:
        return None
    cloud.forget_object(place.bucket, key)
    state = cloud.object_version(place.bucket, names.lab_state_key(lab))
    if not known.still_holds(wanted, state):
        return None
    found = _inventory(Sweeper(cloud).look(lab)[1])
    return known.outputs if found == known.inventory else None


def _inventory(found: list[Leftover]) -> list[str]:
    return sorted(f"{item.kind} {item.name}" for item in found)


def _applied(place: Place, key: str, settings: Settings) -> Applied | None:
    found = open_cloud(settings).get_record(place.bucket, key)
    try:
        return Applied.model_validate(found) if found else None
    except ValidationError:
        # Of another version of this project.
        return None


def _remember(
    place: Place,
    key: str,
    state_key: str,
    wanted: str,
    settings: Settings,
    **more: Any,
) -> None:
    cloud = open_cloud(settings)
    state = cloud.object_version(place.bucket, state_key)
    if state is not None:
        applied = Applied(fingerprint=wanted, state=state, **more)
        cloud.put_record(place.bucket, key, applied.model_dump(mode="json"))


def apply_firewall(record: LabRecord, settings: Settings, place: Place) -> None:
    """On return the firewall lets in the hosts of ``record``. Nothing else of the lab changes."""
    _apply_only(FIREWALL_RULES, record, settings, place)


def apply_key(record: LabRecord, settings: Settings, place: Place) -> None:
    """On return the lab's secret holds the key of the record's version. Nothing else changes.

    A key of that version that is there already stays.
    """
    _apply_only(KEY, record, settings, place)


def _apply_only(what: str, record: LabRecord, settings: Settings, place: Place) -> None:
    # What is not in the record is of no consequence to these resources, and stays as it is.
    variables = _any_valid_variables(record.lab, place) | {
        "owner": record.owner,
        "allowed_cidrs": record.cidrs,
        "gateway_port": names.GATEWAY_PORT,
        "expires_at": to_rfc3339(record.expires_at),
        "key_version": record.key_version,
    }
    lab_root(record.lab, settings, place).up(variables, only=[what])


def destroy_lab_resources(lab: str, settings: Settings, place: Place) -> None:
    """Destroy what is in the lab's Terraform state. Nothing there is success."""
    lab_root(lab, settings, place).down(_any_valid_variables(lab, place))


def destroy_foundation(settings: Settings, place: Place) -> None:
    """Destroy the image repository with its images. Nothing there is success."""
    root = _root("foundation", names.FOUNDATION_STATE_KEY, settings, place)
    root.up({**_foundation_variables(), "force_delete": True})
    root.down(_foundation_variables())


def lab_root(lab: str, settings: Settings, place: Place) -> TerraformRoot:
    """Terraform for one lab's state."""
    return _root("lab", names.lab_state_key(lab), settings, place, data=f"labs/{lab}")


def _root(
    module: str, key: str, settings: Settings, place: Place, data: str = "foundation"
) -> TerraformRoot:
    environment = {
        name: value for name, value in os.environ.items() if name.startswith("AWS_ENDPOINT_URL")
    }
    return TerraformRoot(
        ROOT / "terraform" / module,
        settings.home / "terraform" / settings.target / data,
        {
            "bucket": place.bucket,
            "key": key,
            "region": place.region,
            "encrypt": "true",
            "use_lockfile": "true",
            "use_path_style": "true",
            "skip_credentials_validation": "true",
            "skip_requesting_account_id": "true",
            "skip_metadata_api_check": "true",
        },
        home=settings.home,
        environment={**environment, **open_cloud(settings).environment()},
        deadline=settings.terraform_deadline,
        log=run_log(),
    )


def _foundation_variables() -> dict[str, Any]:
    return {"repository_name": names.repository_name()}


def _any_valid_variables(lab: str, place: Place) -> dict[str, Any]:
    """Terraform wants every variable for a destroy, though it goes by the state alone."""
    end = datetime.fromtimestamp(0).astimezone() + timedelta(days=1)
    return {
        "lab": lab,
        "allowed_cidrs": ["203.0.113.1/32"],
        "image": f"{place.repository}:none",
        "repository_arn": place.repository_arn,
        "models": {"none": {"model_id": "none.none"}},
        "expires_at": to_rfc3339(end),
        "tls_pem": "PRIVATE KEY----- -----BEGIN CERTIFICATE-----",
        "tls_version": 1,
    }
