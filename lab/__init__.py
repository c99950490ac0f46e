"""The gateway lab as a plain library: a lab's definition, its names, its cost.

Nothing here imports Prefect. Only :mod:`adapters` touches the outside world.
"""
