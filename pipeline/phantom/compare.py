"""`python -m pipeline.phantom.compare`: scores of DCM on the phantom's held-out patients, by tags and by truth."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.command import command
from pipeline.errors import UserError
from pipeline.markdown import pipe_table
from pipeline.methods.dcm import DCM
from pipeline.phantom.ground_truth import RECORDS, read_rows
from pipeline.pretraining.label_scores import label_scores
from pipeline.pretraining.metadata_classifier import metadata_logits
from pipeline.pretraining.pool import load_pool
from pipeline.privacy.identity import archive_key, pseudonym
from pipeline.recipe import Recipe, load_recipe
from pipeline.store import Store
from pipeline.tables import read_pool

Scores = list[dict[str, Any]]

_HEAD = ("label", "images", "carry it", "tags right", *(f"{what}, {by}" for by in ("tags", "truth") for what in
         ("accuracy", "balanced", "AUC")))  # fmt: skip


def compare(store: Store, recipe: Recipe, backbone: str) -> tuple[Scores, Scores, Scores]:
    """Scores (`label_scores`) on the validation images: of the encoder by tags, of it by truth, of the tags by truth.

    The encoder is `<backbone>_dcm` of the recipe's first seed. Only labels from study groups and probe have a truth.
    Raises `UserError` if the store has no such encoder, no phantom, or images that are not the phantom's.
    """
    pool = load_pool(store, recipe)
    folder = store.experiment(recipe.name).encoder(backbone, DCM.name, recipe.pretraining.seeds[0])
    logits_NL = metadata_logits(folder, pool).cpu()
    tags_NL, known_NL = pool.labels_NL[pool.val], pool.known_NL[pool.val]
    truth_NL, true_NL = _truth(store, recipe, pool.val)
    return (
        label_scores(logits_NL, tags_NL, known_NL, pool.label_names),
        label_scores(logits_NL, truth_NL, true_NL, pool.label_names),
        label_scores(tags_NL - 0.5, truth_NL, true_NL & known_NL, pool.label_names),
    )


def _truth(store: Store, recipe: Recipe, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The true labels of the pool's `rows`, and which labels have a truth, both (N, labels)."""
    names = recipe.labels.names
    instances = read_pool(store, recipe)["sop_instance"].to_pylist()
    key = archive_key(str(store.phantom / "archive"), store.private, os.environ)
    truth = {
        pseudonym(key, "sop_instance", row["sop_instance_uid"]): {*row["true_groups"].split(","), row["true_probe"]}
        for row in read_rows(store.phantom / "ground_truth" / RECORDS)
    }
    unknown = [row for row in rows.tolist() if instances[row] not in truth]
    if unknown:
        raise UserError(f"{len(unknown)} validation images of {store.root} are not images of its phantom.")
    labels_NL = torch.tensor([[float(name in truth[instances[row]]) for name in names] for row in rows.tolist()])
    has_truth_L = torch.tensor([name in {*recipe.labels.groups, "linear", "curvilinear"} for name in names])
    return labels_NL, has_truth_L.expand(labels_NL.shape)


def markdown(tags: Scores, truth: Scores, agreement: Scores) -> str:
    """The scores as a Markdown table, a row per label; a dash for undefined scores."""
    rows: list[tuple[str, ...]] = []
    for by_tags, by_truth, right in zip(tags, truth, agreement, strict=True):
        cells = [by_tags["base_rate"], right["accuracy"]]
        cells += [scores[kind] for scores in (by_tags, by_truth) for kind in ("accuracy", "balanced_accuracy", "auc")]
        rows.append((by_tags["label"], str(by_tags["images"]), *map(_number, cells)))
    return pipe_table(_HEAD, rows).rstrip("\n")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


@command
def main(arguments: Sequence[str]) -> None:
    """Print DCM's scores on the labels of held-out patients per backbone, by their tags and by the truth."""
    variable = os.environ.get
    parser = argparse.ArgumentParser(prog="python -m pipeline.phantom.compare", description=main.__doc__)
    parser.add_argument("--store", type=Path, default=variable("SONOTAG_STORE") or "store", help="default: %(default)s")
    parser.add_argument(
        "--recipe", default=variable("SONOTAG_RECIPE") or "phantom", help="a name or a YAML file; default: %(default)s"
    )
    options = parser.parse_args(arguments)
    store = Store(options.store.absolute()).up_to_date()
    recipe = load_recipe(options.recipe, {**os.environ, "SONOTAG_STORE": str(store.root)})
    for backbone in recipe.pretraining.backbones:
        print(f"{backbone}\n\n{markdown(*compare(store, recipe, backbone))}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
