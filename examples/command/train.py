"""A training script that knows nothing of sweeps: arguments in, a line of text out after each epoch.

python train.py --lr 0.1 --width 32 --epochs 5 --out runs/one
"""

import argparse
import signal
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--decay", type=float, default=1e-4)
parser.add_argument("--width", type=int, default=32)
parser.add_argument("--part", type=float, default=1.0, help="of the training data")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--resume", type=Path, help="a model saved by an earlier run")
arguments = parser.parse_args()

images, digits = load_digits(return_X_y=True)
train, val, train_digits, val_digits = train_test_split(
    images / 16, digits, test_size=0.25, random_state=0, stratify=digits
)
count = max(50, int(arguments.part * len(train)))

epoch, model = (
    0,
    MLPClassifier(
        (arguments.width,),
        learning_rate_init=arguments.lr,
        alpha=arguments.decay,
        random_state=arguments.seed,
    ),
)
if arguments.resume:
    epoch, model = joblib.load(arguments.resume)
    print(f"going on after epoch {epoch}")

asked = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
while epoch < arguments.epochs and not asked:
    epoch += 1
    model.partial_fit(train[:count], train_digits[:count], classes=np.unique(digits))
    accuracy = model.score(val, val_digits)
    print(f"epoch {epoch:3d}  loss {model.loss_:.4f}  val accuracy {100 * accuracy:.2f}%")
    arguments.out.mkdir(parents=True, exist_ok=True)
    joblib.dump((epoch, model), arguments.out / "new.joblib")
    (arguments.out / "new.joblib").replace(arguments.out / "last.joblib")
