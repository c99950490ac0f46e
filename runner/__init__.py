"""How Prefect on this machine begins runs and serves; nothing here knows what a lab is."""
