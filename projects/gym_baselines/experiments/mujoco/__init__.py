"""One file per task: what differs between them is the task."""
