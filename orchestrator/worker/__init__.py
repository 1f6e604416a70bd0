"""The worker: what runs inside a task."""
