"""One Optuna worker: it takes trials of a study in a journal file until so many are complete."""

from __future__ import annotations

import sys

import optuna
from my_train import score
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

trials, log, pause = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(
    study_name="bench",
    storage=JournalStorage(JournalFileBackend("journal.log")),
    direction="maximize",
    load_if_exists=True,
    sampler=optuna.samplers.RandomSampler(),
)
study.optimize(
    lambda trial: score(trial.suggest_float("x", 0.0, 1.0), trial.number, log, pause),
    callbacks=[MaxTrialsCallback(trials, states=(TrialState.COMPLETE,))],
)
