"""Print how many trials of the study are in each state."""

from __future__ import annotations

import json
from collections import Counter

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

study = optuna.load_study(study_name="bench", storage=JournalStorage(JournalFileBackend("journal.log")))
print(json.dumps(Counter(trial.state.name for trial in study.trials)))
