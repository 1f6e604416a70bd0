"""Data: sources, splits, subsets and transforms. Knows nothing of SLURM."""
