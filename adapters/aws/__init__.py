"""AWS: one module for each thing that is spoken of, every vendor error translated."""
