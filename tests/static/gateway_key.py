"""A detector for detect-secrets: keys of the gateway, and of OpenAI, which look the same."""

import re

from detect_secrets.plugins.base import RegexBasedDetector


class GatewayKeyDetector(RegexBasedDetector):
    """Finds ``sk-`` followed by at least twenty letters, digits, dashes or underscores."""

    secret_type = "Gateway key"  # pragma: allowlist secret: its name
    denylist = (re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),)
