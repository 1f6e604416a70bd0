"""Make the sweeps of a version of this program, for the tests that later versions still read them.

    git archive COMMIT | tar -x -C /tmp/code
    sudo unshare -um .venv/bin/python tests/old_sweep/make.py VERSION /tmp/code

makes `tests/old_sweep/VERSION.tar.gz` with two sweeps: `plain` (a function of the user's; trials fail and
diverge) and `wine` (the built-in job, with an ensemble). They run with a host name and a home folder of their
own, so that the files have none of this machine's; what is neither read nor to be told of a machine is taken
out. Archives, so that no tool takes the code in them for this repository's.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
HOME = Path("/home/me")
TRAIN = """\
import math


def train(config, trial):
    for epoch in range(1, config.epochs + 1):
        score = 1 - 0.1 * abs(math.log10(config.lr) + 2) - 0.2 / (epoch * config.fraction * config.width)
        trial.report(epoch, {"score": score, "loss": 1 - score})
    if config.width == 16 and config.lr < 1e-4:
        raise ValueError("too slow for so many units")
    return {"score": math.nan if config.lr > 0.5 else score}
"""
SWEEPS = {
    "plain": """\
name: plain
metric: {name: score, mode: max}
space:
  lr: tag(log, interval(1e-5, 1.0))
  width: choice(8, 16, 32)
stages:
  coarse: {trials: 12, data: 0.1, epochs: 1}
  fine: {trials: 6, data: 1.0, epochs: 2}
final: {top: 2, seeds: 2, epochs: 3}
jobs:
  _target_: my_train.train
  config: {lr: 0.1, width: 8, fraction: 1.0, epochs: 1}
  scale: {data: fraction, epochs: epochs}
""",
    "wine": """\
defaults:
  - sweep
  - jobs: classify
  - datasets: wine
  - slurm: local
  - _self_
name: wine
metric: {name: val/accuracy, mode: max}
space:
  optimizer.lr: tag(log, interval(1e-3, 1.0))
  model.width: choice(4, 8)
stages:
  coarse: {trials: 6, data: 0.5, epochs: 2}
  fine: {trials: 4, data: 1.0, epochs: 4, sampler: tpe}
final: {top: 2, seeds: 1, epochs: 8, checkpoints: 2}
ensemble: {members: [seeds, settings, checkpoints], combine: greedy}
""",
}


def main(version: str, code: Path) -> None:
    socket.sethostname("node1")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/home"], check=True)
    for name, text in SWEEPS.items():
        folder = HOME / name
        folder.mkdir(parents=True)
        (folder / "sweep.yaml").write_text(text)
        (folder / "my_train.py").write_text(TRAIN)
        run = [sys.executable, "-m", "orchestrator.cli", "run", "sweep.yaml"]
        subprocess.run(run, cwd=folder, env={**os.environ, "PYTHONPATH": str(code)}, check=True)
        _tidy(folder / "sweeps" / name)
    pack([HOME / name / "sweeps" / name for name in SWEEPS], HERE / f"{version}.tar.gz")


def pack(sweeps: Sequence[Path], file: Path) -> None:
    """Put sweeps' directories into an archive, with nobody's name and no time of its own."""

    def nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with gzip.GzipFile(file, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for sweep in sweeps:
            archive.add(sweep, sweep.name, filter=nobody)


def _tidy(sweep: Path) -> None:
    """Take out what is large, or of this machine, and what no command reads of a sweep that is done."""
    shutil.rmtree(sweep / "logs")
    (sweep / "report.html").unlink()
    for path in sweep.glob("final/checkpoints/*/last.pt"):
        path.unlink()
    for path in (sweep / "provenance.json", *sweep.glob("lease/*.json")):
        if path.exists():
            content = json.loads(path.read_text())
            if "packages" in content:
                few = {name: content["packages"].get(name) for name in ("numpy", "torch", "optuna")}
                content |= {"packages": few, "user": "me", "executable": "/home/me/.venv/bin/python"}
            path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())
