"""Training: models, optimizers, the loop and the built-in job. Knows nothing of SLURM."""
