"""Trains the model of an installed recipe and writes its weights.

``python -m lethe_examples.train digits --seed 0 --out digits.safetensors``
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from workers.artifacts import write_state
from workers.recipes import UnknownRecipe, find_recipe


def train(name: str, seed: int, out: Path) -> dict[str, str | int | float]:
    """Train the recipe of this name from scratch, write the weights, and say how good they are.

    The metrics are in the recipe's own unit; for the recipes of this package, the accuracy. The
    time, in seconds, is that of the training alone.
    """
    recipe = find_recipe(name)
    # For recipes that leave the initial weights to PyTorch's global generator.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = recipe.build_model()
        training = recipe.training_data()
        started = time.perf_counter()
        recipe.train(model, training, seed)
        seconds = time.perf_counter() - started
    return {
        "recipe": name,
        "seed": seed,
        "records": len(training),
        "seconds": round(seconds, 3),
        "training_metric": recipe.metric(model, training),
        "holdout_metric": recipe.metric(model, recipe.holdout_data()),
        "out": str(out),
        "digest": write_state(model.state_dict(), out),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Follow the command line: one line of JSON to stdout, progress to stderr."""
    parser = argparse.ArgumentParser(prog="python -m lethe_examples.train", description=__doc__)
    parser.add_argument("recipe", help="the recipe's entry point name, such as digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING if options.quiet else logging.INFO,
        format="%(message)s",
    )
    if not options.out.parent.is_dir():
        parser.error(f"there is no folder {options.out.parent}")
    try:
        report = train(options.recipe, options.seed, options.out)
    except (UnknownRecipe, FileNotFoundError, NotImplementedError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
