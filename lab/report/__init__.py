"""The report of an up: its model, tables, critical path and cost. Pure."""
