"""What every unit test has."""

from tests.isolation import no_network, own_environment

__all__ = ["no_network", "own_environment"]
