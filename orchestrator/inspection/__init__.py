"""Looking at data before any training: what `orchestrate inspect` finds (B1, B10)."""
