"""A store with an archive's tables, cached pixels and two finished encoders, all made up."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.embeddings import page, table
from pipeline.embeddings.page import MapInput, write_map_page
from pipeline.embeddings.table import embed_recipe
from pipeline.files import write_table
from pipeline.networks import encoders
from pipeline.networks.encoders import save_encoder
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.progress import silent
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX, IMAGES, pretraining_pool_table
from pipeline.training.outcome import Outcome
from tests.pipeline.pretraining.conftest import TinyEncoder

COUNT, PATIENTS = 24, 8
FOLDER = "MILLER^ANNA"
HOSTILE = "</script><script>alert(1)</script><img src=http://x.example/a onerror='alert(1)'>\u202e&amp;"


def recipe_of(labels: tuple[str, ...] = ("liver", "kidney")) -> Recipe:
    """Two encoders, of two groups and the probe's shape."""
    sources = [{"kind": "study_groups", "groups": list(labels)}, {"kind": "probe"}]
    return Recipe.model_validate(
        {
            "name": "small",
            "images": {"height": 32, "width": 64},
            "labels": {"sources": sources, "missing": "mask"},
            "pretraining": {"backbones": ["resnet50"], "methods": ["baseline", "ce"]},
            "downstream": {"arms": ["baseline"]},
        }
    )


def write_encoder(folder: Path, draw: int) -> None:
    """A random tiny encoder whose training has ended."""
    torch.manual_seed(draw)
    folder.mkdir(parents=True, exist_ok=True)
    save_encoder(TinyEncoder(), folder / ENCODER)
    Preprocessing("resnet50", 32, 64, mean=80.0, sd=40.0).write(folder)
    Outcome("ran", "", f"draw {draw}").write(folder)


def tables() -> MapInput:
    """Images of different patients and machines; the first is uncropped and states burned-in text."""
    numbers = range(COUNT)
    names = [f"i{number}" for number in numbers]
    ids = {"sop_instance": names, "frame": [0] * COUNT, "patient": [f"p{number % PATIENTS}" for number in numbers]}
    digests = {"image_digest": names, "source_digest": names, "shard": ["s"] * COUNT, "position": [*numbers]}
    labels = {
        "liver": [number % 2 for number in numbers],
        "kidney": [None, *[1 - number % 2 for number in numbers[1:]]],
    }
    shapes = {"linear": [1] * COUNT, "curvilinear": [0] * COUNT}
    split = {"split": ["val" if number % PATIENTS == 0 else "train" for number in numbers]}
    index = {field.name: pa.nulls(COUNT, field.type) for field in DICOM_INDEX.schema}
    index |= {
        "sop_instance": pa.array(names),
        "file_id": pa.array([f"f_{number:016x}" for number in numbers]),
        "patient": pa.array(ids["patient"]),
        "manufacturer": pa.array([HOSTILE if number < 6 else "GE Healthcare" for number in numbers]),
        "burned_in": pa.array([number == 0 for number in numbers]),
    }
    images = {field.name: pa.nulls(COUNT, field.type) for field in IMAGES.schema}
    images |= {name: pa.array(values) for name, values in (ids | digests).items()}
    images["cropped_by"] = pa.array(["whole"] * 2 + ["regions"] * (COUNT - 2))
    pool = pa.Table.from_pydict(ids | digests | split | labels | shapes)
    schema = pretraining_pool_table(("liver", "kidney", "linear", "curvilinear")).schema
    return MapInput(pool.select(schema.names).cast(schema), pa.table(index), pa.table(images))


@dataclass(frozen=True)
class Made:
    """A store and its tables."""

    recipe: Recipe
    store: Store
    found: MapInput


def pixels(_: Path, rows: pa.Table) -> np.ndarray:
    """Grey images that differ in brightness, by their instance."""
    random = np.random.default_rng(0).integers(0, 60, (COUNT, 32, 64))
    numbers = [int(name[1:]) for name in rows["sop_instance"].to_pylist()]
    return np.stack([random[number] + 6 * number + 20 for number in numbers]).astype(np.uint8)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """A tiny backbone, pixels in place of a cache, and maps without t-SNE."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "_ResNet50", TinyEncoder)
        patch.setattr(table, "map_of", lambda vectors_NK: vectors_NK[:, np.argsort(-vectors_NK.std(0))[:2]])
        for module in (table, page):
            patch.setattr(module, "load_pixels", pixels)
        yield


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """The store, of which nothing is embedded; the folder of the first half of the archive has a person's name."""
    recipe, store, found = recipe_of(), Store(tmp_path / "store").open(), tables()
    for number, encoder in enumerate(recipe.pretraining.encoders):
        write_encoder(store.experiment(recipe.name).encoder("resnet50", encoder, 0), number)
    known = {
        "path": [f"{FOLDER if number % PATIENTS < 6 else 'B'}/{number}".encode() for number in range(COUNT)],
        "container": pa.nulls(COUNT, pa.binary()),
        "sop_instance": found.pool["sop_instance"],
        "reason": pa.nulls(COUNT, pa.string()),
        "deleted": [False] * COUNT,
    }
    write_table(store.private / "scan.parquet", pa.table(known))
    return Made(recipe, store, found)


@pytest.fixture
def written(made: Made) -> Path:
    """The page of the maps."""
    rows = embed_recipe(made.recipe, made.store, made.found.pool, silent)
    return write_map_page(made.recipe, made.store, rows, made.found)
