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
from lab.image.plan import ImagePlan
from lab.models.render import terraform_models
from lab.place import Place
from lab.plan import PreflightResult
from lab.record import LabRecord
from lab.settings import ROOT
from lab.spec import LabSpec
from tasks.certificate import certify
from tasks.site import Site
from tasks.stage import run_log, stage, timed

#: What Terraform calls the rules that let hosts in, and the secret's value.
FIREWALL_RULES = "aws_vpc_security_group_ingress_rule.gateway"
KEY = "aws_secretsmanager_secret_version.this"
#: Variables that change on a live lab without Terraform, or that count at its first apply only.
_MOVED = {"expires_at", "desired_count"}


class Provisioned(BaseModel):
    """What Terraform made of a lab, as far as later stages need it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task_definition_arn: str
    trust: Trust
    #: Of the code and values that made it, and Terraform's outputs; see lab.applied.
    fingerprint: str = ""
    outputs: dict[str, Any] = Field(default_factory=dict)


@stage("foundation", run_name="foundation-{site.place.region}")
def provision_foundation(site: Site) -> None:
    """On return the image repository exists as the code wants it. May run at once for many labs.

    Applies nothing if it exists and neither code nor state has changed since the last apply.
    """
    variables = _foundation_variables()
    root = _root("foundation", names.FOUNDATION_STATE_KEY, site)
    wanted = fingerprint(root.module, variables)
    known = _applied(site, names.FOUNDATION_APPLIED_KEY)
    state = site.bucket.etag(names.FOUNDATION_STATE_KEY)
    if known and known.still_holds(wanted, state) and site.registry.exists():
        run_log()("the foundation is as it was applied last")
        return
    root.up(variables)
    _remember(site, names.FOUNDATION_APPLIED_KEY, names.FOUNDATION_STATE_KEY, wanted)


@stage("provision", run_name="provision-{spec.lab}")
def provision_lab(
    spec: LabSpec, site: Site, checked: PreflightResult, image: ImagePlan, record: LabRecord
) -> Provisioned:
    """On return everything of the lab exists, except a running task of the new image.

    The service starts at once only if its image is in the registry already. Applies nothing if the
    last up succeeded, and code, values, state and everything of the lab are as it left them: see
    :func:`save_apply_fingerprint`.
    """
    variables = {
        "lab": spec.lab,
        "owner": spec.owner,
        "allowed_cidrs": checked.cidrs,
        "image": image.reference,
        "repository_arn": site.place.repository_arn,
        "architecture": checked.architecture.ecs,
        "cpu": spec.cpu,
        "memory": spec.memory,
        "capacity_provider": spec.capacity.value,
        "gateway_port": names.GATEWAY_PORT,
        "desired_count": 1 if image.pushed_digest else 0,
        "models": terraform_models(checked.models),
        "container_environment": site.settings.container_environment,
        "expires_at": to_rfc3339(record.expires_at),
        "key_version": record.key_version,
        "stop_grace_minutes": math.ceil(site.settings.stop_grace.total_seconds() / 60),
        "role_boundary_arn": site.place.policy_arn(site.settings.role_boundary),
        "cluster_exists": True,
    }
    certificate = certify(spec.lab, site)
    variables["tls_version"] = certificate.trust.version
    root = lab_root(spec.lab, site)
    wanted = fingerprint(root.module, {k: v for k, v in variables.items() if k not in _MOVED})
    outputs = _outputs_of_last(spec.lab, wanted, site)
    if outputs is None:
        # Faster than Terraform, which then adopts this cluster: see terraform/lab/gateway.tf.
        cluster_tags = record.tags | {names.TAG_EXPIRES_AT: to_rfc3339(record.expires_at)}
        site.service(spec.lab).ensure_cluster(cluster_tags)
        outputs = root.up(variables, secrets={"tls_pem": certificate.pem})
    else:
        run_log()(f"lab {spec.lab} is as the last up left it: nothing to apply")
    return Provisioned.model_validate(
        {**outputs, "trust": certificate.trust, "fingerprint": wanted, "outputs": outputs}
    )


@stage("verify", run_name="take-inventory-{lab}")
def take_inventory(lab: str, site: Site) -> list[str] | None:
    """What exists of the lab, for :func:`save_apply_fingerprint`; ``None`` if it is not known."""
    try:
        return _inventory(Sweeper(site.cloud).look(lab)[1])
    except LabError as error:
        run_log()(f"what there is of lab {lab} cannot be seen: {error.message}")
        return None


def save_apply_fingerprint(
    lab: str, site: Site, made: Provisioned, inventory: list[str] | None
) -> None:
    """Let the next up of ``lab`` skip Terraform if nothing has changed by then.

    For the end of an up. An error here is only logged: it makes the next up slower, nothing else.
    """
    if inventory is None:
        return
    try:
        with timed("verify"):
            _remember(
                site,
                names.lab_applied_key(lab),
                names.lab_state_key(lab),
                made.fingerprint,
                outputs=made.outputs,
                inventory=inventory,
            )
    except LabError as error:
        run_log()(f"the next up will apply everything again: {error.message}")


def _outputs_of_last(lab: str, wanted: str, site: Site) -> dict[str, Any] | None:
    """The outputs of the last up's apply, if another apply would change nothing.

    The stored fingerprint is used once: if this up fails, the next one applies everything.
    """
    key = names.lab_applied_key(lab)
    known = _applied(site, key)
    if known is None:
        return None
    site.bucket.remove(key)
    state = site.bucket.etag(names.lab_state_key(lab))
    if not known.still_holds(wanted, state):
        return None
    found = _inventory(Sweeper(site.cloud).look(lab)[1])
    return known.outputs if found == known.inventory else None


def _inventory(found: list[Leftover]) -> list[str]:
    return sorted(f"{item.kind} {item.name}" for item in found)


def _applied(site: Site, key: str) -> Applied | None:
    found = site.bucket.read_json(key)
    try:
        return Applied.model_validate(found) if found else None
    except ValidationError:
        # Written by another version of this project.
        return None


def _remember(site: Site, key: str, state_key: str, wanted: str, **more: Any) -> None:
    state = site.bucket.etag(state_key)
    if state is not None:
        applied = Applied(fingerprint=wanted, state=state, **more)
        site.bucket.write_json(key, applied.model_dump(mode="json"))


def apply_firewall(record: LabRecord, site: Site) -> None:
    """On return the firewall lets in the hosts of ``record``. Nothing else of the lab changes."""
    _apply_only(FIREWALL_RULES, record, site)


def apply_key(record: LabRecord, site: Site) -> None:
    """On return the lab's secret holds the key of the record's version. Nothing else changes.

    If a key of that version is there already, it stays.
    """
    _apply_only(KEY, record, site)


def _apply_only(what: str, record: LabRecord, site: Site) -> None:
    # Values that are not in the record do not affect these resources, and no other is applied.
    variables = _any_valid_variables(record.lab, site.place) | {
        "owner": record.owner,
        "allowed_cidrs": record.cidrs,
        "gateway_port": names.GATEWAY_PORT,
        "expires_at": to_rfc3339(record.expires_at),
        "key_version": record.key_version,
    }
    lab_root(record.lab, site).up(variables, only=[what])


def destroy_lab_resources(lab: str, site: Site) -> None:
    """Destroy what is in the lab's Terraform state. It succeeds if nothing is there."""
    lab_root(lab, site).down(_any_valid_variables(lab, site.place))


def destroy_foundation(site: Site) -> None:
    """Destroy the image repository with its images. It succeeds if nothing is there."""
    root = _root("foundation", names.FOUNDATION_STATE_KEY, site)
    root.up({**_foundation_variables(), "force_delete": True})
    root.down(_foundation_variables())


def lab_root(lab: str, site: Site) -> TerraformRoot:
    """Terraform for one lab's state."""
    return _root("lab", names.lab_state_key(lab), site, data=f"labs/{lab}")


def _root(module: str, key: str, site: Site, data: str = "foundation") -> TerraformRoot:
    environment = {
        name: value for name, value in os.environ.items() if name.startswith("AWS_ENDPOINT_URL")
    }
    return TerraformRoot(
        ROOT / "terraform" / module,
        site.settings.home / "terraform" / site.settings.target / data,
        {
            "bucket": site.bucket.name,
            "key": key,
            "region": site.place.region,
            "encrypt": "true",
            "use_lockfile": "true",
            "use_path_style": "true",
            "skip_credentials_validation": "true",
            "skip_requesting_account_id": "true",
            "skip_metadata_api_check": "true",
        },
        home=site.settings.home,
        environment={**environment, **site.cloud.environment()},
        deadline=site.settings.terraform_deadline,
        log=run_log(),
    )


def _foundation_variables() -> dict[str, Any]:
    return {"repository_name": names.repository_name()}


def _any_valid_variables(lab: str, place: Place) -> dict[str, Any]:
    """Terraform requires every variable for a destroy, although it only uses the state."""
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
