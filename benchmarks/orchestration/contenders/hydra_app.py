"""Hydra's multirun with its submitit launcher."""

from __future__ import annotations

import hydra
from my_train import score
from omegaconf import DictConfig


@hydra.main(version_base=None, config_path=".", config_name="hydra_app")
def main(config: DictConfig) -> float:
    """Run one trial."""
    return score(config.trial / config.trials, config.trial, config.log, config.pause)


if __name__ == "__main__":
    main()
