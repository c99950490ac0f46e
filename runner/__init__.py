"""How this machine's Prefect begins runs, and serves; nothing here knows what a lab is."""
