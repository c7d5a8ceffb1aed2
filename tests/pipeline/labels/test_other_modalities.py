"""A recipe for CT and MR, through index, cache, labels and pool, against labels written by hand."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.archive.cache_builder import build_cache
from pipeline.archive.listing import locate
from pipeline.archive.scan import index_archive
from pipeline.cohort.pool import pretraining_pool
from pipeline.cohort.splits import read_draws, split_patients
from pipeline.errors import UserError
from pipeline.images.cache import load_pixels
from pipeline.labels.study_groups import study_groups_for
from pipeline.labels.weak_labels import unmapped_descriptions, weak_labels
from pipeline.recipe import Recipe
from pipeline.recipe.archive import Archive
from tests.pipeline.archive.ct_mr import FILES, LABELS, RECIPE, write_archive
from tests.pipeline.archive.synthetic import KEY

SLICES = Recipe.model_validate(yaml.safe_load(RECIPE))


def ingested(folder, recipe=SLICES):
    index = index_archive(str(folder / "archive"), folder / "private", KEY, recipe.archive)
    return index, build_cache(
        index.records,
        str(folder / "archive"),
        folder / "private",
        KEY,
        folder / "images",
        recipe.images,
        recipe.archive,
    )


def names_of(folder, index):
    """The archive's file of each SOP instance."""
    ids = zip(index.records["sop_instance"].to_pylist(), index.records["file_id"].to_pylist(), strict=True)
    return {instance: Path(locate(folder / "private", file)).name for instance, file in ids}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("slices")
    write_archive(made / "archive")
    return made


def test_the_tags_of_ct_and_mr_become_the_labels_that_a_person_reads_in_them(folder):
    index, cache = ingested(folder)
    assert index.rejected["reason"].to_pylist() == ["other_modality"] and cache.rejected.num_rows == 0
    groups = study_groups_for(Path("no such table"), SLICES.labels)
    labels = weak_labels(index.records, groups, SLICES.labels)
    names = names_of(folder, index)
    found = {names[row.pop("sop_instance")]: (row.pop("status"), tuple(row.values())) for row in labels.to_pylist()}
    assert found == {name: (status, values) for name, (*_, status, values) in FILES.items()}
    assert unmapped_descriptions(index.records, groups).num_rows == 0

    splits = split_patients(read_draws(folder / "private", set(index.records["patient"].to_pylist())), None, 0.2)
    pool = pretraining_pool(cache.images, labels, splits, SLICES.labels)
    pooled = {names[row["sop_instance"]]: tuple(row[name] for name in LABELS) for row in pool.to_pylist()}
    assert pooled == {name: values for name, (*_, status, values) in FILES.items() if status == "labelled"}
    assert load_pixels(cache.folder, pool).shape == (7, 32, 64)


def test_frames_of_other_modalities_are_kept_whole_with_their_spacing(folder):
    index, cache = ingested(folder)
    names = names_of(folder, index)
    rows = {names[row["sop_instance"]]: row for row in cache.images.to_pylist()}
    assert {row["cropped_by"] for row in rows.values()} == {"whole"}
    # PixelSpacing 0.661468 and 0.3125 mm; 128 x 128 and 64 x 64 pixels became 32 x 64
    assert rows["ct 0"]["row_spacing_mm"] == pytest.approx(0.661468 * 128 / 32)
    assert rows["mr 7"]["column_spacing_mm"] == pytest.approx(0.3125 * 64 / 64)


def test_recipes_of_other_modalities_on_one_store_read_anew_and_leave_each_other_s_cache(folder):
    ours, cache = ingested(folder)
    before = {path.name: path.read_bytes() for path in cache.folder.iterdir()}
    ultrasound = SLICES.model_copy(update={"archive": Archive(description_patients=1)})
    other, other_cache = ingested(folder, ultrasound)
    assert (ours.records.num_rows, other.records.num_rows, other.read) == (10, 1, 11)
    assert set(other.rejected["reason"].to_pylist()) == {"not_ultrasound"} and other.rejected.num_rows == 10
    assert other_cache.folder != cache.folder and other_cache.images.num_rows == 1
    assert {path.name: path.read_bytes() for path in cache.folder.iterdir()} == before
    with pytest.raises(UserError, match=r"is missing: "):
        load_pixels(other_cache.folder, cache.images)
    again, same = ingested(folder)
    assert again.records.equals(ours.records) and again.rejected.equals(ours.rejected)
    assert same.images.equals(cache.images) and same.decoded == 0
    swapped = Archive(modalities=("MR", "CT", "CT"))
    assert ingested(folder, SLICES.model_copy(update={"archive": swapped}))[0].read == 0


def test_an_archive_without_the_recipe_s_modalities_raises_a_user_error(folder, tmp_path):
    recipe = Archive(modalities=("PT", "NM"))
    with pytest.raises(UserError, match=r" 11 .* PT or NM .* 11 other_modality"):
        index_archive(str(folder / "archive"), tmp_path / "private", KEY, recipe)


def test_slices_keep_their_contrast_in_the_cache(folder):
    _, cache = ingested(folder)
    pixels = load_pixels(cache.folder, cache.images)
    assert np.all(pixels.std((1, 2)) > 20)  # scaled by their 16 bits they would be of one level, or two
