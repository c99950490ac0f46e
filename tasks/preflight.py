"""Everything that can be known to fail is found here, before anything is touched."""

from __future__ import annotations

from adapters.aws import bedrock
from adapters.image import engine as docker
from adapters.image.base_image import check_architecture
from adapters.public_address import find_address
from adapters.terraform import terraform_version
from lab.addresses import host_cidr
from lab.durations import now
from lab.errors import PermanentError
from lab.models.catalog import Catalog, load_catalog
from lab.models.lifecycle import Settled, Terms, settle
from lab.plan import Checked, Place
from lab.settings import Settings
from lab.spec import LabSpec
from tasks.site import open_cloud
from tasks.stage import run_log, stage


@stage("preflight", run_name="preflight-{spec.lab}")
def preflight(spec: LabSpec, settings: Settings) -> Checked:
    """Settle what ``spec`` means here, or raise a LabError that says what must change."""
    log = run_log()
    catalog = load_catalog(settings.catalog_path)
    wanted = catalog.choose(spec.models)
    version = terraform_version()
    log(f"Terraform {'.'.join(map(str, version))}")
    check_architecture(docker.connect(), settings.architecture)
    place = find_place(settings)
    log(f"account {place.account}, region {place.region}, {len(wanted)} models")
    cidrs, deployer = _allowed(spec, settings)
    log(f"the firewall will be open to {', '.join(cidrs)}")
    settled = settle_models(spec, settings, catalog)
    subscribe(spec, settings, settled)
    for note in settled.notes:
        log(f"{note.alias} ({note.model_id or 'not served'}): {note.told}: {note.why}")
    return Checked(
        place=place,
        models=settled.models,
        model_notes=settled.notes,
        model_ends=settled.ends,
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


def settle_models(spec: LabSpec, settings: Settings, catalog: Catalog) -> Settled:
    """The models that the lab gets, by what Bedrock says of them now; see :func:`settle`."""
    at = now()
    cloud = open_cloud(settings)
    terms = Terms(
        region=settings.region,
        at=at,
        lab_ends=at + spec.lifetime,
        warn_until=settings.warn_of_models_until(at),
        subscribe=settings.subscribe,
        unlisted_models=settings.unlisted_models,
    )
    settled = settle(
        catalog.choose(spec.models),
        catalog,
        lambda models: bedrock.ask_models(cloud, models),
        terms,
        spec.on_retired,
    )
    for model_id in settled.unknown:
        run_log()(f"Bedrock does not list {model_id}: whether it serves it is not known")
    return settled


def subscribe(spec: LabSpec, settings: Settings, settled: Settled) -> None:
    """On return the account may call every model of ``settled``.

    Agrees to what the settings allow to be agreed to, and waits for what is on its way, but no
    longer than the lab itself would live.
    """
    cloud = open_cloud(settings)
    log = run_log()
    for model_id in settled.to_subscribe:
        log(f"subscribing the account to {model_id}; this can take a quarter of an hour")
        bedrock.subscribe(cloud, model_id)
    if settled.to_await:
        deadline = min(settings.subscription_deadline, spec.lifetime)
        bedrock.await_agreements(
            cloud, settled.to_await, deadline=deadline.total_seconds(), log=log
        )


def _allowed(spec: LabSpec, settings: Settings) -> tuple[list[str], str | None]:
    """The hosts to let in, and which of them is the deployer's because nobody gave another."""
    if spec.allowed_addresses:
        return sorted({host_cidr(address) for address in spec.allowed_addresses}), None
    deployer = settings.deployer_address or find_address(settings.address_sources, log=run_log())
    return [deployer], deployer
