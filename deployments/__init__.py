"""What is registered at Prefect's server: the work pool, the blocks, and the deployments."""
