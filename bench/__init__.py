"""Measures the lab against the seed in the same run, and writes the results down with charts.

It is outside the layers: it may use the workstation and the adapters as a person would, and starts
flows through Prefect's server only. No other part of the project may use it.
"""
