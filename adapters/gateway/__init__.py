"""The running gateway: as a client asks it, and as probes without a key meet it."""
