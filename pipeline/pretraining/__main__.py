"""`python -m pipeline.pretraining` pretrains a recipe's encoders on a store, without an orchestrator.

Belongs here: this command line. Not here: loading the pool, training, and whose turn it is.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import get_args

from pipeline.command import command
from pipeline.pretraining.pool import load_pool
from pipeline.pretraining.preflight import preflight
from pipeline.pretraining.pretrain import pretrain
from pipeline.progress import Say, silent
from pipeline.recipe import Backbone, Method, load_recipe
from pipeline.store import Store
from pipeline.training.loop import Metrics, OnEpoch
from pipeline.training.parallel import joined

_WHAT = """\
Pretrain encoders on the image cache of a store, as the job `pretrain` does, but with this command alone.

Of the store it needs tables/pretraining_pool.parquet and the cache of the recipe's size under images/, so that a
machine without DICOM files, Dagster and MLflow can do the work:

  rsync -aR store/./tables/pretraining_pool.parquet store/./images gpu:sonotag/store/
  ssh gpu 'cd sonotag && python -m pipeline.pretraining --recipe paper --backbone resnet50 --method ce_dcm'
  rsync -aR gpu:sonotag/store/./experiments store/

Copied back, an encoder is found and not trained again. Training that was stopped goes on where it was. Several GPUs:

  torchrun --nproc-per-node=2 -m pipeline.pretraining --recipe paper --backbone resnet50 --method ce_dcm
"""


@command
def main(arguments: list[str]) -> None:
    """Run the command; returns the exit code, 1 with a sentence where the user has to mend something.

    An encoder that diverged, or has no ImageNet weights to start from, is an outcome: it is printed, and the code is 0.
    """
    asked = _parser().parse_args(arguments)
    with joined() as process:
        _pretrain(asked, _print if process.writes else silent)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.pretraining", description=_WHAT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    variable = os.environ.get
    parser.add_argument("--store", type=Path, default=variable("SONOTAG_STORE") or "store", help="default: %(default)s")
    parser.add_argument(
        "--recipe", default=variable("SONOTAG_RECIPE") or "demo", help="a name or a YAML file; default: %(default)s"
    )
    parser.add_argument("--backbone", choices=get_args(Backbone), help="default: all of the recipe's")
    parser.add_argument("--method", choices=get_args(Method), help="default: all of the recipe's")
    parser.add_argument("--preflight", action="store_true", help="say what it is going to take, and train nothing")
    return parser


def _pretrain(asked: argparse.Namespace, say: Say) -> None:
    store = Store(asked.store.absolute())
    recipe = load_recipe(asked.recipe, {**os.environ, "SONOTAG_STORE": str(store.root)})
    settings, experiment = recipe.pretraining, store.experiment(recipe.name)
    pool = load_pool(store, recipe)
    say(f"{pool.images.count} images of {recipe.images.height} x {recipe.images.width} pixels from {store.root}")
    encoders = [
        (backbone, method, experiment.encoder(backbone, method))
        for backbone in ([asked.backbone] if asked.backbone else settings.backbones)
        for method in ([asked.method] if asked.method else settings.methods)
    ]
    if asked.preflight:
        preflight(encoders, pool, settings, say)
        return
    for backbone, method, folder in encoders:
        told = _told(f"{backbone} {method}", settings.epochs, say)
        outcome = pretrain(backbone, method, pool, settings, folder, say, told)
        say(f"{backbone} {method}: {outcome.status}{outcome.reason and ': '}{outcome.reason}, in {folder}")


def _told(name: str, epochs: int, say: Say) -> OnEpoch:
    def on_epoch(epoch: int, metrics: Metrics) -> None:
        values = ", ".join(f"{metric} {value:.4g}" for metric, value in metrics.items())
        say(f"{name}: epoch {epoch} of {epochs}: {values}")

    return on_epoch


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
