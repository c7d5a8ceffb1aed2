"""Results by source of the test images, by hand: of ten images, one a patient, the first ones are right."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.evaluation.evidence import sources_of_tasks
from pipeline.evaluation.publication import Publication, read_publication, write_publication
from pipeline.evaluation.report import compute_report
from pipeline.evaluation.results_by_source import results_by_source_sections
from pipeline.files import write_table
from pipeline.recipe import Recipe
from pipeline.store import Store
from tests.pipeline.evaluation.conftest import everything, of_seeds

SOURCES = {image: "North <b>" if image < 6 else "South" for image in range(10)}
"""The six of the north have an interval, the four of the south have not."""


def test_a_source_has_the_mean_of_its_own_images_over_the_seeds_beside_its_counts(three_seeds: Recipe) -> None:
    _, predictions = of_seeds(three_seeds, {"ce": [3, 4, 5], "ce_dcm_frozen": [6, 8, 10]})
    shuffled = predictions.take(list(reversed(range(len(predictions)))))  # rows of a model in any order
    first, second = results_by_source_sections(three_seeds, shuffled, {"quality": SOURCES})
    assert first.heading == "Quality by source: accuracy, test images, VGG16-BN, 100 %"
    assert second.heading == first.heading.replace("VGG16-BN", "ResNet-50")
    assert first.table.head == ("Source", "Images", "Patients", "CE", "CE+DCM+F")
    north, others = first.table.rows
    assert north[:3] == ("North <b>", "6", "6") and others == ("1 other", "4", "4", "–", "–")
    assert str(north[3]).startswith("0.667 [") and north[4] == "1.000 [1.000, 1.000]"  # (3 + 4 + 5) / 18


def test_a_segmentation_has_dice_and_an_arm_without_all_seeds_no_column(three_seeds: Recipe) -> None:
    _, predictions = of_seeds(three_seeds, {"ce": [3, 3, 3], "ce_dcm_frozen": [6, 6, 6]})
    diverged = pa.compute.and_(pa.compute.equal(predictions["arm"], "ce"), pa.compute.equal(predictions["seed"], 2))
    kept = predictions.filter(pa.compute.invert(diverged))
    section, _ = results_by_source_sections(three_seeds, kept, {"liver_kidney": SOURCES})
    assert section.heading.startswith("Liver kidney by source: Dice") and section.table.head[3:] == ("CE+DCM+F",)


@pytest.mark.parametrize("sources", [{}, {"quality": dict.fromkeys(range(10), "North")}])
def test_without_sources_or_with_one_there_is_no_table(recipe: Recipe, sources: dict[str, dict[int, str]]) -> None:
    _, predictions = everything(recipe, {"ce": 4})
    assert results_by_source_sections(recipe, predictions, sources) == []
    assert results_by_source_sections(recipe, predictions.slice(0, 0), {"quality": SOURCES}) == []


def test_sources_are_those_of_the_prepared_tasks_whose_manifest_states_them(recipe: Recipe, tmp_path: Path) -> None:
    experiment = Store(tmp_path).open().experiment(recipe.name)
    assert sources_of_tasks(recipe, experiment) == {}
    write_table(experiment.task_images("quality"), pa.table({"image_id": [0, 1], "source": ["a", "b"]}))
    write_table(experiment.task_images("liver_kidney"), pa.table({"image_id": [0, 1]}))
    assert sources_of_tasks(recipe, experiment) == {"quality": {0: "a", 1: "b"}}


def test_published_numbers_give_the_same_tables(publication: Publication, tmp_path: Path) -> None:
    evidence = replace(publication.evidence, sources={"quality": SOURCES})
    write_publication(tmp_path, Publication(evidence, publication.data_sets))
    again = read_publication(tmp_path).evidence
    assert again.sources == evidence.sources
    before, after = (results_by_source_sections(one.recipe, one.predictions, one.sources) for one in (evidence, again))
    assert before and after == before


@pytest.mark.integration
def test_the_report_shows_them_among_all_metrics(publication: Publication) -> None:
    evidence = replace(publication.evidence, sources={"quality": SOURCES})
    (chapter,) = (one for one in compute_report(evidence).chapters if one.anchor == "metrics")
    assert "Quality by source" in chapter.markdown() and "| North \\<b> |" in chapter.markdown()
