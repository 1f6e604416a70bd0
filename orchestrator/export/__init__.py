"""The hand-over: a finished sweep's models as a folder that stands alone, and predicting from it."""
