"""Provides Node and npm for the tests that run the Node client of ``examples/``."""

from __future__ import annotations

from workstation.packages import Log, ensure_program


def ensure_node(log: Log) -> tuple[str, str]:
    """The paths of node and npm; Debian's are installed with apt-get if one is missing.

    Raises what :func:`workstation.packages.ensure_program` raises.
    """
    by_hand = "Node with npm"
    node = ensure_program("Node", ("node", "nodejs"), ["nodejs"], by_hand, log)
    # Debian has a separate package for npm; elsewhere nodejs includes it.
    npm = ensure_program("npm", ("npm",), ["npm"], by_hand, log)
    return node, npm
