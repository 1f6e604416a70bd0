"""Clusters: one interface with a SLURM, a local and a simulated side."""
