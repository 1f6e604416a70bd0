"""Proposing settings: points that learn nothing, Optuna's samplers, and a model over all scales."""
