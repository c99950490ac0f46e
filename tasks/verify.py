"""The posture of a live lab, asked of the cloud and the gateway, and published as a table."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from adapters.aws import facts as aws
from adapters.aws.secret_scan import search_image, search_state
from adapters.aws.user_agent import carried
from adapters.gateway import probes as stranger
from lab import names
from lab.endpoint import Endpoint
from lab.errors import LabError, PermanentError, TransientError, is_transient
from lab.plan import Place
from lab.posture import (
    Check,
    Posture,
    What,
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
    judge_probe,
    judge_retention,
    judge_role,
    judge_searched,
    judge_tags,
    posture_of,
    questions_of,
    rights_of,
    unasked,
    unlisted_model,
)
from lab.settings import Settings
from tasks.lifetime import known_record
from tasks.publish import publish_posture
from tasks.site import open_cloud
from tasks.stage import run_log, stage

Judged = Callable[[], Check]


@stage("verify", run_name="verify-{lab}")
def verify_lab(lab: str, settings: Settings, place: Place) -> Posture:
    """Look at everything of the lab that must be as it is; publish it and return it.

    Reads only, and needs no hold of the lab. A check that cannot be made is one that was missed,
    and says why. PermanentError for a lab that has no task to be looked at.
    """
    log = run_log()
    made = posture_of(_ask(_questions(lab, settings, place)))
    for check in made.checks:
        log(f"{'ok' if check.passed else 'MISSED'}: {check.name}: {check.found}")
    log(f"the posture of lab {lab}: {made.summary}")
    publish_posture(lab, made)
    return made


def _ask(questions: dict[What, Judged]) -> list[Check]:
    """Every answer; they are asked side by side, so that all take as long as the slowest."""

    def ask(what: What) -> Check:
        try:
            return questions[what]()
        except LabError as error:
            if is_transient(error):
                raise TransientError(f"{what}: {error.message}", error.hint) from error
            return unasked(what, str(error))

    with ThreadPoolExecutor(max_workers=len(questions)) as pool:
        return list(pool.map(carried(ask), questions))


def _questions(lab: str, settings: Settings, place: Place) -> dict[What, Judged]:
    """What is asked, by the name of the check; what several need is read first."""
    cloud = open_cloud(settings)
    record = known_record(lab, settings, place)
    name = names.resource_name(lab)
    running = cloud.running_task(name, name)
    if running is None or record.trust is None:
        raise PermanentError(
            f"no task of lab {lab} runs that could be looked at", "Bring it up with lab-up."
        )
    endpoint = Endpoint.of(lab, running.address, record.trust.ca)
    task = aws.read_task(cloud, lab, running.arn)
    key = cloud.gateway_key(names.key_secret(lab))
    known = {"the gateway's key": key}
    role = f"{name}-task"
    role_arn = f"arn:{place.partition}:iam::{place.account}:role/{role}"
    model = unlisted_model(record)
    repository = names.repository_name()

    def digest() -> Check:
        held = cloud.held_image(repository, record.image_tag) if record.image_tag else None
        return judge_digest(record.image_digest, task.image_digest, held.digest if held else None)

    def image() -> Check:
        if task.image_digest is None:
            return unasked(What.IMAGE, "ECS tells no digest")
        memory = settings.home / "searched-layers.json"
        searched = search_image(cloud, repository, task.image_digest, known, memory)
        return judge_searched(What.IMAGE, searched)

    return {
        What.FIREWALL: lambda: judge_firewall(
            record.cidrs, names.GATEWAY_PORT, task.groups, aws.read_ingress(cloud, task.groups)
        ),
        What.CERTIFICATE: lambda: judge_certificate(
            stranger.shake_hands(endpoint), endpoint.tls_name, record.expires_at
        ),
        What.AUTHORITY: lambda: judge_probe(
            What.AUTHORITY, "no authority but the lab's own", stranger.try_public_trust(endpoint)
        ),
        What.OLD_TLS: lambda: judge_probe(
            What.OLD_TLS, "TLS 1.2 or newer", stranger.try_old_tls(endpoint)
        ),
        What.PLAIN_HTTP: lambda: judge_probe(
            What.PLAIN_HTTP, "no HTTP answer without TLS", stranger.try_plain_http(endpoint)
        ),
        What.KEY: lambda: judge_key(stranger.ask_without_key(endpoint)),
        What.GATEWAY_MODELS: lambda: judge_gateway_models(
            stranger.ask_for_models(endpoint, key, [model, f"bedrock/converse/{model}"])
        ),
        What.IAM_MODELS: lambda: judge_iam_models(
            aws.ask_iam(cloud, role_arn, questions_of(record, place))
        ),
        What.ROLE: lambda: judge_role(
            aws.read_role(cloud, role),
            rights_of(record, place),
            place.policy_arn(settings.role_boundary),
        ),
        What.DEFINITION: lambda: judge_definition(task, known),
        What.ENVIRONMENT: lambda: judge_environment(task, known),
        What.IMAGE: image,
        What.STATE: lambda: judge_searched(
            What.STATE, search_state(cloud, place.bucket, names.lab_state_key(lab), known)
        ),
        What.HARDENING: lambda: judge_hardening(task),
        What.CAPACITY: lambda: judge_capacity(record.capacity, task.capacity),
        What.DIGEST: digest,
        What.RETENTION: lambda: judge_retention(aws.read_retention(cloud, lab)),
        What.TAGS: lambda: judge_tags(record, aws.read_tags(cloud, lab, task)),
    }
