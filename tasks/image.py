"""The gateway's image: named after what goes into it, checked before it is built, and pushed.

An image that exists already is neither built nor pushed.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect.futures import PrefectFuture
from prefect_docker.deployments import steps
from pydantic import BaseModel, ConfigDict, Field
from requests.exceptions import RequestException

from adapters.image import engine
from adapters.image.audit import audit
from adapters.image.base_image import PUBLIC_PYTHON, ensure_base_image, read_contents
from adapters.image.wheel_check import check_wheels, load_wheel_rules
from adapters.image.wheels import LockedRequirement, fetch_wheels, read_lock, releases, sha256_of
from adapters.process import raise_if_interrupted
from lab.durations import format_duration
from lab.errors import (
    DeadlineError,
    InterruptedWorkError,
    LabError,
    PermanentError,
    TransientError,
)
from lab.files import write_atomic
from lab.image import recipe, sbom
from lab.image.advisories import load_advisories
from lab.image.contents import WheelFile, describe_sbom, image_of_sbom
from lab.image.plan import ImagePlan, PushedImage
from lab.models.render import litellm_config
from lab.plan import PreflightResult
from lab.report.model import ImageScan
from lab.settings import ADVISORIES_PATH, WHEEL_RULES_PATH
from tasks.draft import note_in_report
from tasks.futures import Chain
from tasks.site import Site
from tasks.stage import run_log, stage


@stage("plan image", run_name="plan-image")
def plan_image(site: Site, checked: PreflightResult) -> ImagePlan:
    """Name the image that the models need, and check whether the registry holds it already.

    On return the base image is on this machine. Raises PermanentError for a release that the
    advisories of this project refuse: nothing that costs money has been made yet.
    """
    entries = read_lock(recipe.GATEWAY.lock, checked.architecture)
    advisories = load_advisories(ADVISORIES_PATH)
    advisories.check(advisories.find(releases(entries)), date.today())
    base = ensure_base_image(
        engine.connect(),
        checked.architecture,
        public_reference=PUBLIC_PYTHON if site.settings.public_base_image else None,
        log=run_log(),
    )
    config = litellm_config(checked.models)
    tag = recipe.image_tag(
        recipe.GATEWAY,
        base_identity=base.identity,
        architecture=checked.architecture,
        config_text=config,
    )
    return ImagePlan(
        repository=site.place.repository,
        tag=tag,
        base_reference=base.reference,
        base_source=base.source,
        config=config,
        pushed_digest=site.registry.digest(tag),
    )


class Scanned(BaseModel):
    """What the scan of an image found, and the image's bill of materials."""

    model_config = ConfigDict(frozen=True)

    scan: ImageScan
    sbom_text: str | None


@stage("scan image", run_name="scan-image-{image.tag}")
def scan_image(lab: str, site: Site, checked: PreflightResult, image: ImagePlan) -> Scanned:
    """On return this project's advisories and rules refuse nothing in the image.

    Its bill of materials is stored next to the lab's report. Raises PermanentError for a release
    that the advisories of this project refuse, and for wheels that would install more than their
    package; the wheels of an image that the registry holds were checked before its build.
    """
    log = run_log()
    entries = read_lock(recipe.GATEWAY.lock, checked.architecture)
    advisories = load_advisories(ADVISORIES_PATH)
    notes = advisories.check(advisories.find(releases(entries)), date.today())
    for note in notes:
        log(note)
    log(
        f"{len(entries)} releases held against config/advisories.yaml of {advisories.as_of}"
        f" ({(date.today() - advisories.as_of).days} days old)"
    )
    wheels: list[Path] | None = None
    path = site.settings.lab_home(lab) / recipe.SBOM_NAME
    bill = _bill_of(image, path)
    if image.pushed_digest:
        try:
            wheels = None if bill else _fetch(site, checked)
        except InterruptedWorkError:
            raise
        except LabError as error:
            log(f"no bill of materials here, but the image has one: {error.message}")
    else:
        rules = load_wheel_rules(WHEEL_RULES_PATH)
        wheels = _fetch(site, checked)
        check_wheels(wheels, rules, log)
    scan = ImageScan(advisories_of=advisories.as_of, notes=notes)
    if wheels is not None:
        bill = _make_sbom(image, entries, wheels)
        write_atomic(path, bill)
    if bill is None:
        path.unlink(missing_ok=True)
        return Scanned(scan=scan, sbom_text=None)
    listed = describe_sbom(bill)
    log(f"{path}: {listed.python_packages} wheels, {listed.debian_packages} Debian packages")
    return Scanned(scan=scan.model_copy(update={"sbom": listed}), sbom_text=bill)


class Audited(BaseModel):
    """The public source that was asked about an image's releases, or why none was; its notes."""

    model_config = ConfigDict(frozen=True)

    by: str
    notes: list[str] = Field(default_factory=list)


@stage("audit image", run_name="audit-image-{image.tag}")
def audit_image(checked: PreflightResult, image: ImagePlan) -> Audited:
    """On return no public source that answers knows a fault of a release in the image.

    Raises PermanentError for a fault that is not excepted: such an image may have been built here,
    and is not pushed. No source is asked about an image that the registry holds.
    """
    log = run_log()
    if image.pushed_digest:
        return Audited(by="nobody: the image was built before")
    audited = audit(read_lock(recipe.GATEWAY.lock, checked.architecture), log)
    for reason in audited.silent:
        log(f"pip-audit could not ask {reason}")
    notes = load_advisories(ADVISORIES_PATH).check(audited.findings, date.today())
    if audited.unknown:
        notes = [*notes, f"{audited.source} does not know {', '.join(audited.unknown)}"]
    for note in notes:
        log(note)
    return Audited(by=audited.source or "nobody: no public source could be asked", notes=notes)


def _bill_of(image: ImagePlan, path: Path) -> str | None:
    """The bill of materials at ``path``, if it belongs to this image: equal images share one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return text if image_of_sbom(text) == image.tag else None


def _fetch(site: Site, checked: PreflightResult) -> list[Path]:
    cache = site.settings.home / "wheels"
    return fetch_wheels(recipe.GATEWAY.lock, checked.architecture, cache, run_log())


def _make_sbom(image: ImagePlan, entries: list[LockedRequirement], wheels: list[Path]) -> str:
    base = read_contents(engine.connect(), image.base_reference)
    installed = [
        WheelFile(entry.name, str(entry.version), wheel.name, sha256_of(wheel))
        for entry, wheel in zip(entries, wheels, strict=True)
        # The installer installs the others, and is not in the image.
        if entry.name != recipe.INSTALLER
    ]
    return sbom.write_sbom(image.tag, installed, base)


@stage("build image", run_name="build-image-{image.tag}")
def build_image(site: Site, checked: PreflightResult, image: ImagePlan, scanned: Scanned) -> bool:
    """On return the engine or the registry holds the image; True if this call has built it."""
    log = run_log()
    if image.pushed_digest:
        log(f"{image.reference} is in the registry: nothing to build")
        return False
    listed = scanned.scan.sbom
    labels = {
        "gateway-lab.base": image.base_source,
        "gateway-lab.inputs": image.tag,
        "gateway-lab.sbom": f"sha256:{listed.sha256}" if listed else "",
    }
    if engine.has_image(engine.connect(), image.reference, labels):
        log(f"{image.reference} is on this machine: nothing to build")
        return False
    wheels = _fetch(site, checked)
    site.settings.home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="context-", dir=site.settings.home) as folder:
        context = recipe.prepare_context(
            recipe.GATEWAY,
            Path(folder) / "gateway",
            wheels,
            config_text=image.config,
            sbom_text=scanned.sbom_text,
        )
        arguments = recipe.build_arguments(
            context,
            base_reference=image.base_reference,
            architecture=checked.architecture,
            labels=labels,
        )
        output = _LineLog(log, site.settings.build_deadline.total_seconds())
        try:
            with redirect_stdout(output):
                steps.build_docker_image(
                    image.repository, tag=image.tag, ignore_cache=True, **arguments
                )
        except steps.BuildError as error:
            raise PermanentError(
                f"building the image failed: {error}", "The build's output above shows where."
            ) from error
        except RequestException as error:
            raise TransientError(f"the Docker engine stopped answering: {error}") from error
    return True


@stage("push image", run_name="push-image-{image.tag}")
def push_image(
    site: Site, image: ImagePlan, scanned: Scanned, audited: Audited, built: bool
) -> PushedImage:
    """On return the registry holds the image; return it with its digest.

    An image that is there already is not pushed. Raises PermanentError if the registry holds
    another image than the one that was built here.
    """
    digest = image.pushed_digest or _push(site, image)
    pushed = PushedImage.of(image, digest)
    if image.pushed_digest:
        run_log()(f"{image.reference} is in the registry: nothing to push")
    notes = [*scanned.scan.notes, *audited.notes]
    note_in_report(
        image=pushed,
        image_built=built,
        base_image=f"{image.base_source}: {image.base_reference}",
        scan=scanned.scan.model_copy(update={"audited_by": audited.by, "notes": notes}),
    )
    return pushed


def _push(site: Site, image: ImagePlan) -> str:
    """Push what the engine has under the image's tag; return the registry's digest of it."""
    log, docker = run_log(), engine.connect()
    engine.push(docker, image.reference, site.registry.login(), log)
    held = site.registry.held_image(image.tag)
    if held is None:
        raise TransientError(f"the registry does not know {image.reference} after the push")
    built = engine.image_id(docker, image.reference)
    if built not in (held.configuration, held.digest):
        raise PermanentError(
            f"the registry holds another image as {image.reference} than was built: built was"
            f" {built}, held is {held.digest} of {held.configuration}",
            "Find out who else pushes to the repository, remove the tag from it, and bring the"
            " lab up again.",
        )
    log(f"{image.reference} is {held.digest}: what was built here, {built}")
    return held.digest


def submit_image(
    lab: str,
    site: Site,
    checked: PreflightResult,
    image: ImagePlan,
    after: PrefectFuture[Any],
) -> Chain[PushedImage]:
    """Scan, audit, build and push, each as soon as possible; the push also waits for ``after``."""
    scanned = scan_image.submit(lab, site, checked, image)
    audited = audit_image.submit(checked, image)
    built = build_image.submit(site, checked, image, scanned, return_state=False)
    pushed = push_image.submit(
        site, image, scanned, audited, built, wait_for=[after], return_state=False
    )
    return Chain(pushed, [after, scanned, audited, built])


class _LineLog(io.TextIOBase):
    """A standard output that goes to the run's log line by line, and ends a build that is too long.

    prefect-docker's build writes every event of the engine to standard output: the one place
    where a build can be ended from inside.
    """

    def __init__(self, log: Callable[[str], None], deadline: float) -> None:
        self._log, self._rest = log, ""
        self._deadline, self._end = deadline, time.monotonic() + deadline

    def write(self, text: str) -> int:
        raise_if_interrupted("the image's build")
        if time.monotonic() > self._end:
            raise DeadlineError(
                f"the image's build did not end within {format_duration(self._deadline)}",
                "Look at the build's last lines above.",
            )
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._log(f"docker: {line.rstrip()}")
        return len(text)
