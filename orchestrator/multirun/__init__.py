"""A sweep whose jobs an existing Hydra application runs: what the Hydra sweeper plugin is made of."""
