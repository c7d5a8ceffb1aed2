"""Published numbers give the same report and hold no patient's name."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.downstream.predictions import PREDICTIONS
from pipeline.errors import UserError
from pipeline.evaluation.publication import Publication, read_publication, write_publication
from pipeline.evaluation.report import compute_report
from pipeline.files import read_json, write_json
from pipeline.recipe import Recipe
from pipeline.tables import FROZEN_SCORES
from tests.pipeline.evaluation.conftest import NAMES


@pytest.mark.integration
def test_the_report_of_the_published_numbers_is_that_of_the_store(publication: Publication, tmp_path: Path) -> None:
    """Exactly, including p-values: the test resamples the same patients."""
    write_publication(tmp_path, publication)
    again = read_publication(tmp_path)
    before, after = compute_report(publication.evidence), compute_report(again.evidence)
    for name in (
        "results",
        "summaries",
        "differences",
        "minimum_effects",
        "mode_collapses",
        "constants",
        "inpaintings",
    ):
        assert getattr(after, name) == getattr(before, name), name
    assert after.markdown == before.markdown
    assert again.data_sets == publication.data_sets
    assert any(row.p not in (None, 1.0) for row in after.differences) and "HD95" in after.markdown


def test_no_name_no_mask_and_no_path_is_published(publication: Publication, tmp_path: Path) -> None:
    evidence = publication.evidence
    settings = evidence.recipe.model_dump()
    settings["downstream"]["tasks"]["quality"]["manifest"] = "/home/dr_maier/quality.csv"
    settings["pretraining"]["imagenet_weights"] = {"resnet50": "/home/dr_maier/weights.safetensors"}
    changed = dataclasses.replace(evidence, recipe=Recipe.model_validate(settings))
    write_publication(tmp_path, Publication(changed, publication.data_sets))
    facts = (tmp_path / "experiment.json").read_text(encoding="utf-8")
    assert "dr_maier" not in facts and facts.count("weights.safetensors") == facts.count("quality.csv") == 1
    assert {path.name for path in tmp_path.iterdir()} == {
        "experiment.json",
        "predictions.parquet",
        "validation.parquet",
    }
    for name in ("predictions", "validation"):
        table = pq.read_table(tmp_path / f"{name}.parquet")
        assert not {"predicted_mask", "truth_mask"} & set(table.column_names)
        texts = {
            value for column in table.columns if column.type == pa.string() for value in column.unique().to_pylist()
        }
        assert not texts & {*NAMES, "a", "g"}
        assert set(table["patient"].to_pylist()) <= set(range(1, len(NAMES) + 7 + 1))


def test_scores_of_frozen_encoders_are_published_and_belong_to_the_numbers(
    publication: Publication, tmp_path: Path
) -> None:
    row = {"problem": "quality", "split": "test", "metric": "auc", "features": "ce", "backbone": "resnet50", "seed": 0}
    row |= {"method": "nearest neighbours", "fraction": 1.0, "draws": 1, "images": 4, "patients": 2, "score": 0.75}
    row |= {"low": 0.5, "high": 1.0, "resampled": [0.5, 1.0], "fingerprint": "ab"}
    row |= {"group_by": "machine", "group": "ACME X", "questions": 3}
    frozen = pa.Table.from_pylist([row], schema=FROZEN_SCORES.schema)
    scored = Publication(dataclasses.replace(publication.evidence, frozen=frozen), publication.data_sets)
    write_publication(tmp_path, scored)
    assert read_publication(tmp_path).evidence.frozen.to_pylist() == [row]
    written = tmp_path / "frozen_scores.parquet"
    pq.write_table(pa.Table.from_pylist([row | {"score": 0.9}], schema=FROZEN_SCORES.schema), written)
    with pytest.raises(UserError, match="do not match the digests"):
        read_publication(tmp_path)
    write_publication(tmp_path, publication)  # of an experiment without scores
    assert not written.exists() and not read_publication(tmp_path).evidence.frozen.num_rows


def test_patients_are_numbered_within_their_task_without_a_gap(publication: Publication, tmp_path: Path) -> None:
    evidence = dataclasses.replace(publication.evidence, validation=PREDICTIONS.empty_table())
    write_publication(tmp_path, Publication(evidence, publication.data_sets))
    table = pq.read_table(tmp_path / "predictions.parquet")
    for task in ("quality", "liver_kidney"):
        of_task = table.filter(pa.compute.equal(table["task"], task))
        assert sorted(set(of_task["patient"].to_pylist())) == list(range(1, 10))


def test_distances_are_those_of_the_masks(publication: Publication, tmp_path: Path) -> None:
    """0 for correct images; the other masks are mirrored, about 10 pixels away."""
    write_publication(tmp_path, publication)
    table = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    right = [row["hd95"] for row in table if row["task"] == "liver_kidney" and row["intersection"] == [100, 50]]
    wrong = [row["hd95"] for row in table if row["task"] == "liver_kidney" and row["intersection"] == [0, 0]]
    assert right and wrong
    assert np.all(np.array(right) == 0) and np.array(wrong).min() > 5
    assert all(row["hd95"] is None for row in table if row["task"] == "quality")


@pytest.mark.integration
def test_publishing_twice_writes_the_same_bytes(publication: Publication, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_publication(tmp_path / folder, publication)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_a_recipe_that_compares_nothing_is_read_again(publication: Publication, recipe: Recipe, tmp_path: Path) -> None:
    """The default comparison names arms that this recipe does not train."""
    evidence = dataclasses.replace(publication.evidence, recipe=recipe)
    write_publication(tmp_path, Publication(evidence, []))
    again = read_publication(tmp_path).evidence
    assert again.recipe.comparisons == recipe.comparisons == ()
    assert compute_report(again).markdown == compute_report(evidence).markdown


def test_a_folder_without_a_publication_or_of_another_version_is_refused(
    publication: Publication, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"experiment\.json .*pipeline\.evaluation\.publish"):
        read_publication(tmp_path)
    write_publication(tmp_path, publication)
    write_json(tmp_path / "experiment.json", read_json(tmp_path / "experiment.json") | {"layout": 2})
    with pytest.raises(UserError, match=r"experiment\.json has layout 2.* layout 1"):
        read_publication(tmp_path)


@pytest.mark.parametrize("name", ["predictions.parquet", "validation.parquet"])
def test_an_incompletely_written_folder_is_refused(publication: Publication, tmp_path: Path, name: str) -> None:
    """A publication killed between two files has a missing table or one that does not match its digest."""
    write_publication(tmp_path, publication)
    table = pq.read_table(tmp_path / name)
    pq.write_table(table.slice(1), tmp_path / name)
    with pytest.raises(UserError, match=r"experiment\.json"):
        read_publication(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"experiment\.json"):
        read_publication(tmp_path)
    write_publication(tmp_path, publication)
    assert read_publication(tmp_path).data_sets == publication.data_sets


def test_the_experiment_of_another_recipe_is_not_written_over(publication: Publication, tmp_path: Path) -> None:
    write_publication(tmp_path, publication)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = publication.evidence.recipe.model_copy(update={"name": "other"})
    evidence = dataclasses.replace(publication.evidence, recipe=other)
    with pytest.raises(UserError, match=f"{tmp_path} holds the recipe tiny, not other"):
        write_publication(tmp_path, Publication(evidence, publication.data_sets))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_curves_of_an_earlier_publication_are_read_under_the_names_of_today(
    publication: Publication, tmp_path: Path
) -> None:
    ran, lost = publication.evidence.trainings
    older = dataclasses.replace(ran, curves={**ran.curves, "train_adversarial_share": [0.2, 0.3]})
    evidence = dataclasses.replace(publication.evidence, trainings=[older, lost])
    write_publication(tmp_path, Publication(evidence, publication.data_sets))
    curves = read_publication(tmp_path).evidence.trainings[0].curves
    assert curves["train_adversarial_share_at_the_patch"] == [0.2, 0.3]
    assert "train_adversarial_share" not in curves
    assert curves["val_loss"] == ran.curves["val_loss"]


def test_numbers_in_json_keep_all_their_digits(publication: Publication, tmp_path: Path) -> None:
    write_publication(tmp_path, publication)
    facts = json.loads((tmp_path / "experiment.json").read_text())
    assert facts["trainings"][0]["curves"]["val_loss"][1] == 0.1 + 0.2
    assert facts["constants"][0]["score"] == 1 / 3


def test_epochs_without_a_score_are_null_in_json_and_the_kept_epoch_stays(
    publication: Publication, tmp_path: Path
) -> None:
    ran, lost = publication.evidence.trainings
    scored = dataclasses.replace(ran, curves={**ran.curves, "val_linear_auc": [math.nan, 0.75]}, kept_epoch=2)
    evidence = dataclasses.replace(publication.evidence, trainings=[scored, lost])
    write_publication(tmp_path, Publication(evidence, publication.data_sets))
    assert "NaN" not in (tmp_path / "experiment.json").read_text(encoding="utf-8")
    again = read_publication(tmp_path).evidence.trainings[0]
    assert again.selected_epoch == 1
    assert math.isnan(again.curves["val_linear_auc"][0]) and again.curves["val_linear_auc"][1] == 0.75
