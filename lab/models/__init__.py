"""The models of a lab: catalogue, life cycle, and what is rendered from both. Pure."""
