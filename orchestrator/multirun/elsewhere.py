"""Stands as the job of a sweep that a Hydra application runs.

It has no function, so that `orchestrate run` and `advance` refuse to start its trials, and the name of the
function that is not there says why.
"""
