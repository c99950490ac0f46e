"""What this machine needs before a lab can be brought up on it: engine, local cloud, servers."""
