"""A cluster that is only pretended: its own clock, queue, limits and accidents, all from a seed.

It has the interface of the real ones and passes the same contract tests, so that thousands of whole sweeps
can be driven through what a real cluster does once a year.
"""
