"""Narrowing: from the results of stages to the next ranges, with a reason for each parameter."""
