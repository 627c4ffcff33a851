"""Writes a run's small checkpoint for git: `python -m training.keep --run nano`."""

from __future__ import annotations

import argparse

import torch

from training.train import RUNS, Learner, Options


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="nano", help="a run below training/runs")
    learner = Learner(Options(RUNS / parser.parse_args().run), torch.device("cpu"))
    learner.load()
    learner.commit()


if __name__ == "__main__":
    main()
