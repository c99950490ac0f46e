"""The posture of a live lab, asked of the cloud and the gateway, and published as a table."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from adapters.aws import facts as aws
from adapters.aws.secret_scan import search_image, search_state
from adapters.aws.user_agent import propagate_stage
from adapters.gateway import probes
from lab import names
from lab.endpoint import Endpoint
from lab.errors import LabError, PermanentError, TransientError, is_transient
from lab.posture import (
    Check,
    CheckName,
    Posture,
    judge_attempt,
    judge_capacity,
    judge_certificate,
    judge_definition,
    judge_digest,
    judge_environment,
    judge_firewall,
    judge_gateway_models,
    judge_hardening,
    judge_iam_models,
    judge_key,
    judge_retention,
    judge_role,
    judge_searched,
    judge_tags,
    posture_of,
    questions_of,
    rights_of,
    unknown_check,
    unlisted_model,
)
from tasks.publish import publish_posture
from tasks.records import require_record
from tasks.site import Site
from tasks.stage import run_log, stage

Judged = Callable[[], Check]


@stage("verify", run_name="verify-{lab}")
def verify_lab(lab: str, site: Site) -> Posture:
    """Check everything that must be true of the lab; publish and return the result.

    Reads only, and needs no hold of the lab. A check that cannot be made counts as missed, and says
    why. Raises PermanentError for a lab that has no task.
    """
    log = run_log()
    made = posture_of(_ask(_questions(lab, site)))
    for check in made.checks:
        log(f"{'ok' if check.passed else 'MISSED'}: {check.name}: {check.found}")
    log(f"the posture of lab {lab}: {made.summary}")
    publish_posture(lab, made)
    return made


def _ask(questions: dict[CheckName, Judged]) -> list[Check]:
    """The answers to all questions, asked in parallel: they take as long as the slowest one."""

    def ask(what: CheckName) -> Check:
        try:
            return questions[what]()
        except LabError as error:
            if is_transient(error):
                raise TransientError(f"{what}: {error.message}", error.hint) from error
            return unknown_check(what, str(error))

    with ThreadPoolExecutor(max_workers=len(questions)) as pool:
        return list(pool.map(propagate_stage(ask), questions))


def _questions(lab: str, site: Site) -> dict[CheckName, Judged]:
    """The questions, by the name of their check; facts that several of them need are read first."""
    cloud, place = site.cloud, site.place
    record = require_record(lab, site)
    name = names.resource_name(lab)
    running = site.service(lab).running_task()
    if running is None or record.trust is None:
        raise PermanentError(
            f"no task of lab {lab} runs that could be looked at", "Bring it up with lab-up."
        )
    endpoint = Endpoint.of(lab, running.address, record.trust.ca)
    task = aws.read_task(cloud, lab, running.arn)
    key = site.secrets.require(names.key_secret(lab))
    known = {"the gateway's key": key}
    role = f"{name}-task"
    role_arn = f"arn:{place.partition}:iam::{place.account}:role/{role}"
    model = unlisted_model(record)

    def digest() -> Check:
        pushed = record.image
        held = site.registry.held_image(pushed.tag) if pushed else None
        return judge_digest(
            pushed.digest if pushed else None, task.image_digest, held.digest if held else None
        )

    def image() -> Check:
        if task.image_digest is None:
            return unknown_check(CheckName.IMAGE, "ECS names no digest")
        memory = site.settings.home / "searched-layers.json"
        searched = search_image(site.registry, task.image_digest, known, memory)
        return judge_searched(CheckName.IMAGE, searched)

    return {
        CheckName.FIREWALL: lambda: judge_firewall(
            record.cidrs, names.GATEWAY_PORT, task.groups, aws.read_ingress(cloud, task.groups)
        ),
        CheckName.CERTIFICATE: lambda: judge_certificate(
            probes.shake_hands(endpoint), endpoint.tls_name, record.expires_at
        ),
        CheckName.AUTHORITY: lambda: judge_attempt(
            CheckName.AUTHORITY, "no authority but the lab's own", probes.try_public_trust(endpoint)
        ),
        CheckName.OLD_TLS: lambda: judge_attempt(
            CheckName.OLD_TLS, "TLS 1.2 or newer", probes.try_old_tls(endpoint)
        ),
        CheckName.PLAIN_HTTP: lambda: judge_attempt(
            CheckName.PLAIN_HTTP, "no HTTP answer without TLS", probes.try_plain_http(endpoint)
        ),
        CheckName.KEY: lambda: judge_key(probes.ask_without_key(endpoint)),
        CheckName.GATEWAY_MODELS: lambda: judge_gateway_models(
            probes.ask_for_models(endpoint, key, [model, f"bedrock/converse/{model}"])
        ),
        CheckName.IAM_MODELS: lambda: judge_iam_models(
            aws.ask_iam(cloud, role_arn, questions_of(record, place))
        ),
        CheckName.ROLE: lambda: judge_role(
            aws.read_role(cloud, role),
            rights_of(record, place),
            place.policy_arn(site.settings.role_boundary),
        ),
        CheckName.DEFINITION: lambda: judge_definition(task, known),
        CheckName.ENVIRONMENT: lambda: judge_environment(task, known),
        CheckName.IMAGE: image,
        CheckName.STATE: lambda: judge_searched(
            CheckName.STATE, search_state(site.bucket, names.lab_state_key(lab), known)
        ),
        CheckName.HARDENING: lambda: judge_hardening(task),
        CheckName.CAPACITY: lambda: judge_capacity(record.capacity, task.capacity),
        CheckName.DIGEST: digest,
        CheckName.RETENTION: lambda: judge_retention(aws.read_retention(cloud, lab)),
        CheckName.TAGS: lambda: judge_tags(record, aws.read_tags(cloud, lab, task)),
    }
