"""Ensembles: members, and how they are combined."""
