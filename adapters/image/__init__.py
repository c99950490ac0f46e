"""The gateway's image outside this project: base image, wheels, audit, Docker engine."""
