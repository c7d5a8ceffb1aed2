"""The table of embeddings: its rows, and what is not computed again."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from pipeline.embeddings import table
from pipeline.embeddings.table import embed_recipe, shown_images
from pipeline.errors import UserError
from pipeline.progress import silent
from pipeline.store import Store
from pipeline.tables import EMBEDDINGS
from tests.pipeline.embeddings.conftest import COUNT, PATIENTS, Made, write_encoder

KEYS = ("backbone", "encoder", "seed", "sop_instance", "frame")


def embedded(made: Made, pool: pa.Table | None = None) -> tuple[pa.Table, list[str]]:
    """The table, and a line for each encoder that was embedded."""
    lines: list[str] = []
    return embed_recipe(made.recipe, made.store, made.found.pool if pool is None else pool, lines.append), lines


def test_every_encoder_has_one_row_per_image(made: Made) -> None:
    rows, lines = embedded(made)
    assert len(lines) == 2 and rows.equals(EMBEDDINGS.read(made.store.experiment("small").tables))
    keys = list(zip(*(rows[name].to_pylist() for name in KEYS), strict=True))
    expected = [("resnet50", name, 0, f"i{image}", 0) for name in ("baseline", "ce") for image in range(COUNT)]
    assert keys == expected
    assert rows["patient"].to_pylist() == [f"p{number % PATIENTS}" for number in range(COUNT)] * 2
    assert rows.schema.equals(EMBEDDINGS.schema) and {len(vector) for vector in rows["vector"].to_pylist()} == {8}
    assert len({*zip(rows["x"].to_pylist(), rows["y"].to_pylist(), strict=True)}) > COUNT


def test_what_is_embedded_is_not_embedded_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = embedded(made)
    monkeypatch.setattr(table, "load_pixels", None)  # nor are its pixels read
    again, lines = embedded(made)
    assert lines == [] and again.equals(first)


def test_only_a_changed_encoder_is_embedded_again(made: Made) -> None:
    first, _ = embedded(made)
    write_encoder(made.store.experiment("small").encoder("resnet50", "ce", 0), 9)
    after, lines = embedded(made)
    assert len(lines) == 1 and lines[0].startswith("resnet50 ce:")
    assert after.slice(0, COUNT).equals(first.slice(0, COUNT)) and not after.equals(first)


def test_other_images_are_embedded_and_those_that_left_the_pool_are_not_kept(made: Made) -> None:
    embedded(made)
    rows, lines = embedded(made, made.found.pool.slice(1))
    assert len(lines) == 2 and rows.num_rows == 2 * (COUNT - 1) and "i0" not in rows["sop_instance"].to_pylist()


def test_a_run_that_was_stopped_keeps_what_it_has_embedded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = table.map_of, iter(range(2))

    def stopping(vectors: np.ndarray) -> np.ndarray:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return original(vectors)

    with monkeypatch.context() as patch:
        patch.setattr(table, "map_of", stopping)
        with pytest.raises(KeyboardInterrupt):
            embed_recipe(made.recipe, made.store, made.found.pool, silent)
    assert [line.split(":")[0] for line in embedded(made)[1]] == ["resnet50 ce"]


def test_a_large_pool_is_shown_by_images_of_every_patient(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_IMAGES", PATIENTS + 2)
    chosen = shown_images(made.found.pool)
    counts = Counter(chosen["patient"].to_pylist())
    assert len(counts) == PATIENTS and sorted(counts.values()) == [1] * (PATIENTS - 2) + [2, 2]
    assert chosen.equals(shown_images(made.found.pool))


def test_without_a_finished_encoder_the_job_to_run_is_named(made: Made) -> None:
    with pytest.raises(UserError, match=r"run the job `pretrain`"):
        embed_recipe(made.recipe, Store(made.store.root / "empty").open(), made.found.pool, silent)
