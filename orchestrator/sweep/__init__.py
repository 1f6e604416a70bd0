"""The directory of a sweep: its files, lease, records and facts."""
