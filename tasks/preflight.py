"""Finds every problem that can be known beforehand, before anything is touched."""

from __future__ import annotations

from adapters.aws import bedrock
from adapters.image import engine
from adapters.image.base_image import check_architecture
from adapters.public_address import find_address
from adapters.terraform import terraform_version
from lab.addresses import host_cidr
from lab.durations import now
from lab.models.catalog import Catalog, load_catalog
from lab.models.lifecycle import ModelPolicy, ModelSelection, select_models
from lab.plan import PreflightResult
from lab.settings import Settings
from lab.spec import LabSpec
from tasks.draft import note_in_report
from tasks.site import Site
from tasks.stage import run_log, stage


@stage("preflight", run_name="preflight-{spec.lab}")
def preflight(spec: LabSpec, site: Site) -> PreflightResult:
    """Decide what ``spec`` means on ``site``, or raise a LabError that says what must change."""
    log, settings = run_log(), site.settings
    catalog = load_catalog(settings.catalog_path)
    wanted = catalog.choose(spec.models)
    version = terraform_version()
    log(f"Terraform {'.'.join(map(str, version))}")
    check_architecture(engine.connect(), settings.architecture)
    log(f"account {site.place.account}, region {site.place.region}, {len(wanted)} models")
    cidrs, deployer = _allowed(spec, settings)
    log(f"the firewall will be open to {', '.join(cidrs)}")
    selection = choose_models(spec, site, catalog)
    subscribe(spec, site, selection)
    for one in selection.notes:
        log(f"{one.alias} ({one.model_id or 'not served'}): {one.action}: {one.why}")
    note_in_report(model_notes=selection.notes)
    return PreflightResult(
        models=selection.models,
        model_notes=selection.notes,
        model_ends=selection.ends,
        cidrs=cidrs,
        deployer=deployer,
        architecture=settings.architecture,
    )


def choose_models(spec: LabSpec, site: Site, catalog: Catalog) -> ModelSelection:
    """The models that the lab gets, by what Bedrock now reports; see :func:`select_models`."""
    at, settings = now(), site.settings
    policy = ModelPolicy(
        region=settings.region,
        at=at,
        lab_ends=at + spec.lifetime,
        warn_until=settings.warn_of_models_until(at),
        subscribe=settings.subscribe,
        unlisted_models=settings.unlisted_models,
    )
    selection = select_models(
        catalog.choose(spec.models),
        catalog,
        lambda models: bedrock.ask_models(site.cloud, models),
        policy,
        spec.on_retired,
    )
    for model_id in selection.unknown:
        run_log()(f"Bedrock does not list {model_id}: whether it serves it is not known")
    return selection


def subscribe(spec: LabSpec, site: Site, selection: ModelSelection) -> None:
    """On return the account may call every model of ``selection``.

    Agrees to the terms that the settings allow, and waits for agreements that are pending, but no
    longer than the lab would live.
    """
    log = run_log()
    for model_id in selection.to_subscribe:
        log(f"subscribing the account to {model_id}; this can take a quarter of an hour")
        bedrock.subscribe(site.cloud, model_id)
    if selection.to_await:
        deadline = min(site.settings.subscription_deadline, spec.lifetime)
        bedrock.await_agreements(
            site.cloud, selection.to_await, deadline=deadline.total_seconds(), log=log
        )


def _allowed(spec: LabSpec, settings: Settings) -> tuple[list[str], str | None]:
    """The hosts to let in, and the deployer's, which is let in only if no address was given."""
    if spec.allowed_addresses:
        return sorted({host_cidr(address) for address in spec.allowed_addresses}), None
    deployer = settings.deployer_address or find_address(settings.address_sources, log=run_log())
    return [deployer], deployer
