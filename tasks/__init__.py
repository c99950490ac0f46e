"""One stage of a lab's life a file: retries, deadlines, logs. The work itself is the adapters'."""
