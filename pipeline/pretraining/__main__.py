"""The command `python -m pipeline.pretraining`: pretrain a recipe's encoders on a store, without an orchestrator."""

import argparse
import os
import sys
from pathlib import Path

from pipeline.blocking_checks import refuse_training
from pipeline.command import command
from pipeline.errors import UserError
from pipeline.methods import METHODS, TrainingSettings
from pipeline.pretraining.plan import PlannedEncoder, planned_encoders
from pipeline.pretraining.pool import load_pool
from pipeline.pretraining.preflight import preflight
from pipeline.pretraining.start import refuse_exposed_starts
from pipeline.pretraining.top_folders import sources_of
from pipeline.progress import Log, silent
from pipeline.recipe import Recipe, load_recipe
from pipeline.settings import TORCHVISION_BACKBONES
from pipeline.store import Store
from pipeline.tables import read_pool
from pipeline.training.distributed import process_group
from pipeline.training.loop import Metrics, OnEpoch

_WHAT = """\
Pretrain encoders on the image cache of a store, as the job `pretrain` does, but with this command alone.

Of the store it needs the recipe's pool, the results of checks, and the cache of the recipe's size under images/, so
that a machine without DICOM files, Dagster and MLflow can do the work (a variant that is shown sources needs
private/scan.parquet too, which names files: train it on the machine with the archive):

  cd store && rsync -aR checks images experiments/paper/{checks,tables/pretraining_pool.parquet} gpu:sonotag/store/
  ssh gpu 'cd sonotag && python -m pipeline.pretraining --recipe paper --backbone resnet50 --method ce_dcm'
  rsync -aR gpu:sonotag/store/./experiments .

Copied back, an encoder is found and not trained again. Training that was stopped resumes. Several GPUs:

  torchrun --nproc-per-node=2 -m pipeline.pretraining --recipe paper --backbone resnet50 --method ce_dcm
"""


@command
def main(arguments: list[str]) -> None:
    """Run the command; returns the exit code, 1 and a message if the user has to correct something.

    An encoder that diverged, or has no ImageNet weights to start from, is an outcome: it is printed, and the code is 0.
    """
    options = _parser().parse_args(arguments)
    with process_group() as process:
        _pretrain(options, _print if process.is_main else silent)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.pretraining", description=_WHAT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    variable = os.environ.get
    parser.add_argument("--store", type=Path, default=variable("SONOTAG_STORE") or "store", help="default: %(default)s")
    parser.add_argument(
        "--recipe", default=variable("SONOTAG_RECIPE") or "demo", help="a name or a YAML file; default: %(default)s"
    )
    parser.add_argument("--backbone", metavar="NAME", help="an architecture; default: all of the recipe's")
    parser.add_argument("--method", metavar="NAME", help="a method, or a variant of the recipe; default: all of it")
    parser.add_argument("--seed", type=int, help="one of pretraining.seeds; default: all of them")
    parser.add_argument("--preflight", action="store_true", help="estimate time, memory and disk, and train nothing")
    return parser


def _pretrain(options: argparse.Namespace, log: Log) -> None:
    store = Store(options.store.absolute()).up_to_date()
    recipe = load_recipe(options.recipe, {**os.environ, "SONOTAG_STORE": str(store.root)})
    encoders = _selected(options, recipe, store)
    pool = load_pool(store, recipe)
    refuse_training(store, recipe)
    rows = read_pool(store, recipe)
    refuse_exposed_starts(((encoder.settings, encoder.backbone) for encoder in encoders), rows, store.private)
    sources = sources_of(rows, store.private)
    log(f"{pool.images.count} images of {recipe.images.height} x {recipe.images.width} pixels from {store.root}")
    if options.preflight:
        preflight(encoders, pool, sources, log)
        return
    for encoder in encoders:
        outcome = encoder.pretrain(encoder.pool(pool, sources), log, _print_epochs(encoder, log))
        log(f"{encoder.name}: {outcome.status}{outcome.reason and ': '}{outcome.reason}, in {encoder.folder}")


def _selected(options: argparse.Namespace, recipe: Recipe, store: Store) -> list[PlannedEncoder]:
    """The encoders that the options select; `--method` may name one that the recipe does not train."""
    settings = recipe.pretraining
    known, architectures = (
        (*METHODS, *settings.variants),
        tuple(dict.fromkeys((*settings.backbones, *TORCHVISION_BACKBONES))),
    )
    if options.backbone and options.backbone not in architectures:
        raise UserError(f"--backbone {options.backbone} is none of {', '.join(architectures)}.")
    if options.method and options.method not in known:
        raise UserError(f"--method {options.method} is none of {', '.join(known)}.")
    if options.seed is not None and options.seed not in settings.seeds:
        raise UserError(f"--seed {options.seed} is none of pretraining.seeds: {', '.join(map(str, settings.seeds))}.")
    return planned_encoders(recipe, store.experiment(recipe.name), options.backbone, options.method, options.seed)


def _print_epochs(encoder: PlannedEncoder, log: Log) -> OnEpoch:
    settings = encoder.settings
    epochs = settings.epochs if isinstance(settings, TrainingSettings) else 0

    def on_epoch(epoch: int, metrics: Metrics) -> None:
        values = ", ".join(f"{metric} {value:.4g}" for metric, value in metrics.items())
        log(f"{encoder.name}: epoch {epoch} of {epochs}: {values}")

    return on_epoch


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
