"""What every unit test may count on."""

from tests.isolation import no_network, own_environment

__all__ = ["no_network", "own_environment"]
