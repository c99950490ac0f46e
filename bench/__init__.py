"""What the lab takes, measured against the seed in the same run, and written down with charts.

Stands outside of the layers: it may use the workstation and the adapters as a person would, and
starts flows through Prefect's server only. Nothing of the project may use it.
"""
