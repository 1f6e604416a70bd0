"""Looking at a machine, its cluster and their file system before a sweep relies on them."""
