"""The table `embeddings` of a recipe: what is computed already, from equal input and code, is not computed again."""

import time
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import code_versions
from pipeline.embeddings.layout import map_of, principal_vectors
from pipeline.files import digest, read_table
from pipeline.images.cache import cache_folder, load_pixels
from pipeline.mirrored import read_if_intact
from pipeline.networks.encoders import load_encoder
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing, encoder_digest
from pipeline.pretraining.plan import PlannedEncoder, finished_encoders
from pipeline.progress import Log
from pipeline.recipe import Recipe
from pipeline.representation.features import encoder_features
from pipeline.store import Store
from pipeline.tables import EMBEDDINGS
from pipeline.training.patient_rounds import patient_rounds
from pipeline.training.seeds import generator

MAX_IMAGES = 2000
"""Maximum number of images, chosen from the pool: every patient in turn. Their map takes eight seconds."""

_SCHEMA = EMBEDDINGS.schema
_IDS = ("sop_instance", "frame", "patient", "split")


def embed_recipe(recipe: Recipe, store: Store, pool: pa.Table, log: Log) -> pa.Table:
    """Embed images of `pool` by every finished encoder; writes the table, after each of them, and returns it.

    Raises `UserError` if no encoder is finished.
    """
    tables, chosen = store.experiment(recipe.name).tables, shown_images(pool)
    encoders = finished_encoders(recipe, store)
    content = digest(code_versions.EMBEDDINGS, [chosen[name].to_pylist() for name in (*_IDS, "image_digest")])
    marks = [_fingerprint(one, content) for one in encoders]
    earlier = read_if_intact(EMBEDDINGS.path(tables), read_table)
    known = earlier if earlier is not None and earlier.schema.equals(_SCHEMA) else _SCHEMA.empty_table()
    parts = [known.filter(pc.field("fingerprint") == mark) for mark in marks]
    pixels = cache(lambda: load_pixels(cache_folder(store.images, recipe.images, recipe.archive), chosen))
    for at, (one, mark) in enumerate(zip(encoders, marks, strict=True)):
        if not parts[at].num_rows:
            began = time.monotonic()
            parts[at] = _embedded(one, chosen, pixels(), mark)
            log(f"{one.name}: {chosen.num_rows} images embedded in {time.monotonic() - began:.1f} s.")
            EMBEDDINGS.write(tables, pa.concat_tables(parts))
    rows = pa.concat_tables(parts)
    EMBEDDINGS.write(tables, rows)
    return rows


def shown_images(pool: pa.Table) -> pa.Table:
    """At most `MAX_IMAGES` rows of `pool`, every patient in turn, in its order; the same for the same pool."""
    chosen = patient_rounds(range(pool.num_rows), pool["patient"].to_pylist(), generator(0, "embeddings"))
    return pool.take(sorted(chosen[:MAX_IMAGES]))


def _fingerprint(one: PlannedEncoder, content: str) -> str:
    return digest(content, encoder_digest(one.folder), one.backbone, one.encoder, one.settings.seed)


def _embedded(one: PlannedEncoder, images: pa.Table, pixels_NHW: NDArray[np.uint8], mark: str) -> pa.Table:
    """The rows of one encoder."""
    how = Preprocessing.read(one.folder)
    encoder = load_encoder(how.backbone, one.folder / ENCODER)
    vectors_NK = principal_vectors(encoder_features(encoder, how.normalization, pixels_NHW, maps=False).pooled_ND)
    x_N, y_N = map_of(vectors_NK).T
    count = images.num_rows
    columns = {
        "backbone": [one.backbone] * count,
        "encoder": [one.encoder] * count,
        "seed": [one.settings.seed] * count,
        **{name: images[name] for name in _IDS},
        "x": x_N,
        "y": y_N,
        "vector": pa.FixedSizeListArray.from_arrays(vectors_NK.reshape(-1), vectors_NK.shape[1]),
        "fingerprint": [mark] * count,
    }
    return pa.table(columns).cast(_SCHEMA)
