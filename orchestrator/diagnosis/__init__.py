"""Diagnosis: what is seen of a training as it runs, what it says, and what to try next.

`watch` collects, `curves`, `layers`, `ratios` and `drift` judge what was collected, `origin` finds where NaN
came from, `predictions` and `detail` describe final runs, and `collect` puts together what a stage's trials
showed.
"""
