"""AWS: one module for each subject, every vendor error translated."""
