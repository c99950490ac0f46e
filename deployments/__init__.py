"""What Prefect's server has to know: the work pool, the blocks, and the deployments."""
