"""Any command line as a job: its arguments, its metrics, how it is stopped and taken up again."""
