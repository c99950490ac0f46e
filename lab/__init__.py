"""The gateway lab as a plain library: what a lab is, what it is called, what it costs.

Nothing here knows of Prefect. Only :mod:`adapters` touches the outside world.
"""
