"""`python -m pipeline.embeddings` embeds the pool by a recipe's encoders, or prints the neighbours of an image."""

import argparse
import sys
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.blocking_checks import refuse_training
from pipeline.cohort.image_facts import labels_of, positions_in
from pipeline.command import command, recipe_and_store
from pipeline.embeddings.page import MapInput, image_ids, neighbours_of, write_map_page
from pipeline.embeddings.table import embed_recipe
from pipeline.errors import UserError
from pipeline.markdown import cell, pipe_table
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX, EMBEDDINGS, IMAGES, read_pool

_HEAD = ("Encoder", "Image", "Similarity", "Patient", "Labels")


@command
def main(arguments: list[str]) -> None:
    """Write the table and the page of maps, or print a table; fails with one sentence if there is nothing to embed."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.embeddings", description=__doc__)
    actions = parser.add_subparsers(dest="action", title="actions", description="default: embed and draw the maps")
    neighbours = actions.add_parser("neighbours", help="print the images most similar to an image")
    neighbours.add_argument("image", help="file id, colon, frame number from 0, as the page of maps shows it")
    neighbours.add_argument("--encoder", help="folder name of one encoder, such as resnet50_ce_seed-0; default: all")
    options = parser.parse_args(arguments)
    recipe, store = recipe_and_store()
    if options.action:
        print(_neighbours(recipe, store, options.image, options.encoder), end="")
        return
    found = MapInput(read_pool(store, recipe), DICOM_INDEX.read(store.tables), _images(recipe, store))
    refuse_training(store, recipe)
    print(write_map_page(recipe, store, embed_recipe(recipe, store, found.pool, _log), found))


def _images(recipe: Recipe, store: Store) -> pa.Table:
    return IMAGES.read(store.experiment(recipe.name).tables, recipe)


def _neighbours(recipe: Recipe, store: Store, image: str, encoder: str | None) -> str:
    """The neighbours of `image` by each encoder, or by one, as a Markdown table."""
    tables, pool = store.experiment(recipe.name).tables, read_pool(store, recipe)
    if not EMBEDDINGS.path(tables).is_file():
        raise UserError(f"{store.root} has no embeddings of the recipe {recipe.name}: run the job `evaluate`.")
    parts, index = _by_encoder(EMBEDDINGS.read(tables)), DICOM_INDEX.read(store.tables)
    if encoder is not None and encoder not in parts:
        raise UserError(f"--encoder {encoder} is not among the embeddings: {', '.join(parts)}.")
    lines: list[tuple[str, ...]] = []
    for name in [encoder] if encoder else parts:
        ids = image_ids(index, parts[name])
        if image not in ids:
            raise UserError(f"The embeddings hold no image {image!r}: an id is like {ids[0]}, see the page of maps.")
        lines += _lines(name, parts[name], _labels(recipe, pool, parts[name]), ids, ids.index(image))
    return pipe_table(_HEAD, lines)


def _by_encoder(rows: pa.Table) -> dict[str, pa.Table]:
    """The rows of each encoder, by the name of its folder."""
    keys = zip(*(rows[name].to_pylist() for name in ("backbone", "encoder", "seed", "fingerprint")), strict=True)
    return {
        f"{backbone}_{encoder}_seed-{seed}": rows.filter(pc.field("fingerprint") == mark)
        for backbone, encoder, seed, mark in dict.fromkeys(keys)
    }


def _labels(recipe: Recipe, pool: pa.Table, rows: pa.Table) -> list[str]:
    """The labels of each image; of an image that the pool has lost, why there are none."""
    labels = labels_of(pool, recipe.labels.names)
    return ["no longer in the pool" if at is None else labels[at] for at in positions_in(pool, rows)]


def _lines(encoder: str, rows: pa.Table, labels: Sequence[str], ids: Sequence[str], at: int) -> list[tuple[str, ...]]:
    """The image at `at` and its neighbours, those of other patients first."""
    others, own = (of_images[at] for of_images in neighbours_of(rows))
    found = [(at, 1.0, "the image")] + [(*one, "other") for one in others] + [(*one, "same") for one in own]
    return [
        (cell(encoder), cell(ids[number]), f"{similarity:.3f}", patient, cell(labels[number]))
        for number, similarity, patient in found
    ]


def _log(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
