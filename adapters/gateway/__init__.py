"""The running gateway: a client of it, and probes that it must refuse."""
