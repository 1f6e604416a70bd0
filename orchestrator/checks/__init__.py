"""Sanity checks before a sweep: on a job's own model, loss and data, before it has cost anything."""
