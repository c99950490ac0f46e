"""Everything that can be known to fail is found here, before anything is touched."""

from __future__ import annotations

from lab.adapters import docker
from lab.adapters.address import find_address
from lab.adapters.base_image import check_architecture
from lab.adapters.terraform import terraform_version
from lab.addresses import host_cidr
from lab.catalog import load_catalog
from lab.errors import PermanentError
from lab.plan import Checked, Place
from lab.settings import Settings
from lab.spec import LabSpec
from tasks.cloud import open_cloud
from tasks.stages import run_log, stage


@stage("preflight", run_name="preflight-{spec.lab}")
def preflight(spec: LabSpec, settings: Settings) -> Checked:
    """Settle what ``spec`` means here, or raise a LabError that says what must change."""
    log = run_log()
    models = load_catalog(settings.catalog_path).choose(spec.models)
    version = terraform_version()
    log(f"Terraform {'.'.join(map(str, version))}")
    check_architecture(docker.connect(), settings.architecture)
    place = find_place(settings)
    log(f"account {place.account}, region {place.region}, {len(models)} models")
    cidrs, deployer = _allowed(spec, settings)
    log(f"the firewall will be open to {', '.join(cidrs)}")
    return Checked(
        place=place,
        models=models,
        cidrs=cidrs,
        deployer=deployer,
        architecture=settings.architecture,
    )


def find_place(settings: Settings) -> Place:
    """The account and region of ``settings``; PermanentError if they may not be used."""
    cloud = open_cloud(settings)
    cloud.check_region()
    account, partition = cloud.account()
    if settings.account and account != settings.account:
        raise PermanentError(
            f"the credentials belong to account {account}, allowed is {settings.account}",
            "Sign in to the right account, or change LAB_ACCOUNT.",
        )
    return Place(
        account=account,
        partition=partition,
        region=settings.region,
        registry_host=settings.registry_host,
    )


def _allowed(spec: LabSpec, settings: Settings) -> tuple[list[str], str | None]:
    """The hosts to let in, and which of them is the deployer's because nobody gave another."""
    if spec.allowed_addresses:
        return sorted({host_cidr(address) for address in spec.allowed_addresses}), None
    deployer = settings.deployer_address or find_address(settings.address_sources, log=run_log())
    return [deployer], deployer
