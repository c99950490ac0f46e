"""The names of everything in a lab. They follow from the lab's name, so nothing is remembered.

Pure. Terraform builds the same names from the same lab name; ``tests/terraform`` compares them.
"""

from __future__ import annotations

import re

from lab.errors import InvalidInputError

PROJECT = "gateway-lab"

#: ECS, IAM, EC2 and Secrets Manager accept far more; 20 characters keep the longest derived
#: name (an IAM role: 64 characters) and the artifact keys in Prefect's UI readable.
LAB_NAME_PATTERN = r"^[a-z](?:-?[a-z0-9]){1,19}$"
LAB_NAME_MAX = 20

TAG_LAB = "lab:id"
TAG_PROJECT = "lab:project"
TAG_OWNER = "lab:owner"
TAG_MANAGED_BY = "lab:managed-by"
#: On roles, which belong to no region.
TAG_REGION = "lab:region"
TAG_EXPIRES_AT = "lab:expires-at"


def check_lab_name(name: str) -> str:
    """Return ``name`` if AWS accepts every name derived from it, else raise InvalidInputError."""
    if len(name) <= LAB_NAME_MAX and re.fullmatch(LAB_NAME_PATTERN, name):
        return name
    raise InvalidInputError(
        f"lab name {name!r} is not allowed: 2 to {LAB_NAME_MAX} lower-case letters, digits and "
        "single dashes, beginning with a letter and not ending with a dash",
        "Choose a name such as 'demo' or 'team-a-1'.",
    )


def resource_name(lab: str) -> str:
    """The name of the lab's cluster, service, roles, security group and task family."""
    return f"{PROJECT}-{lab}"


def repository_name() -> str:
    """The ECR repository that all labs of the account and region share."""
    return PROJECT


def state_bucket(account: str, region: str) -> str:
    """The S3 bucket that holds Terraform's state and the labs' records (globally unique)."""
    return f"{PROJECT}-{account}-{region}"


def lab_prefix(lab: str) -> str:
    """The prefix of everything of ``lab`` in the state bucket."""
    return f"labs/{lab}/"


def lab_state_key(lab: str) -> str:
    """The key of the lab's Terraform state."""
    return f"{lab_prefix(lab)}terraform.tfstate"


def lab_record_key(lab: str) -> str:
    """The key of the lab's record, which is enough to know its end."""
    return f"{lab_prefix(lab)}lab.json"


def lab_applied_key(lab: str) -> str:
    """The key of the record of the lab's last apply, see lab.applied."""
    return f"{lab_prefix(lab)}applied.json"


FOUNDATION_STATE_KEY = "foundation/terraform.tfstate"
FOUNDATION_APPLIED_KEY = "foundation/applied.json"


#: The port that the gateway listens on.
GATEWAY_PORT = 4000


def endpoint_of(address: str) -> str:
    """Where the gateway of a task at ``address`` answers."""
    return f"https://{address}:{GATEWAY_PORT}"


def tls_name(lab: str) -> str:
    """The name in the gateway's certificate: the same wherever the lab's task runs.

    ``internal`` is the top-level domain that ICANN keeps free for private use.
    """
    return f"{resource_name(lab)}.internal"


def key_secret(lab: str) -> str:
    """The Secrets Manager secret that holds the gateway's key."""
    return f"{resource_name(lab)}/gateway-key"


def tls_secret(lab: str) -> str:
    """The Secrets Manager secret that holds the gateway's certificate and its private key."""
    return f"{resource_name(lab)}/gateway-tls"


#: The gateway's container in the task, and the prefix of its log streams.
CONTAINER = "gateway"
#: The roles of a lab, by what follows its name.
ROLES = ("execution", "task", "scheduler", "stop")
#: The one schedule in a lab's schedule group.
STOP_SCHEDULE = "stop"


def state_machine(lab: str) -> str:
    """The Step Functions state machine that stops the lab's service at its end."""
    return f"{resource_name(lab)}-stop"


def variable(lab: str, what: str) -> str:
    """A Prefect variable's name, which takes no dashes."""
    return f"lab_{lab.replace('-', '_')}_{what}"


def log_group(lab: str) -> str:
    """The gateway's CloudWatch log group."""
    return f"/{PROJECT}/{lab}"


def lab_of_resource(name: str) -> str | None:
    """The lab whose resource is called ``name`` by :func:`resource_name`, or ``None``."""
    lab = name.removeprefix(f"{PROJECT}-")
    return lab if lab != name and re.match(LAB_NAME_PATTERN, lab) else None


def artifact_key(lab: str, what: str) -> str:
    """A Prefect artifact's key: stable for a lab, so that the UI shows its history."""
    return f"lab-{lab}-{what}"
