"""Terraform's stages: the foundation that labs share, and each lab itself."""

from __future__ import annotations

import math
import os
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict

from lab import names
from lab.adapters.terraform import TerraformRoot
from lab.certificate import Trust
from lab.durations import to_rfc3339
from lab.plan import Checked, ImagePlan, Place
from lab.record import LabRecord
from lab.render import terraform_models
from lab.settings import ROOT, Settings
from lab.spec import LabSpec
from tasks.certificate import certify
from tasks.cloud import open_cloud
from tasks.stages import run_log, stage

#: What Terraform calls the rules that let hosts in, and the secret's value.
FIREWALL_RULES = "aws_vpc_security_group_ingress_rule.gateway"
KEY = "aws_secretsmanager_secret_version.this"


class Provisioned(BaseModel):
    """What Terraform made of a lab, as far as later stages need it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cluster_name: str
    service_name: str
    task_definition_arn: str
    log_group_name: str
    secret_name: str
    trust: Trust


@stage("foundation", run_name="foundation-{place.region}")
def provision_foundation(settings: Settings, place: Place) -> None:
    """On return the image repository exists as the code wants it. May run at once for many labs."""
    _root("foundation", names.FOUNDATION_STATE_KEY, settings, place).up(_foundation_variables())


@stage("provision", run_name="provision-{spec.lab}")
def provision_lab(
    spec: LabSpec, settings: Settings, checked: Checked, image: ImagePlan, record: LabRecord
) -> Provisioned:
    """On return everything of the lab but a running task of the new image exists.

    The service starts at once only if its image is in the registry already.
    """
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
    # Faster than Terraform makes one, which takes it over: see terraform/lab/gateway.tf.
    open_cloud(settings).ensure_cluster(
        names.resource_name(spec.lab),
        record.tags | {names.TAG_EXPIRES_AT: to_rfc3339(record.expires_at)},
    )
    certificate = certify(spec.lab, settings, checked.place)
    outputs = lab_root(spec.lab, settings, checked.place).up(
        {**variables, "tls_version": certificate.trust.version},
        secrets={"tls_pem": certificate.pem},
    )
    return Provisioned.model_validate({**outputs, "trust": certificate.trust})


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
