"""Scores of frozen encoders in the report: means over seeds and their intervals by hand, controls, what is missing."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.evaluation.evidence import Training, frozen_scores_of
from pipeline.evaluation.frozen_gains import interval
from pipeline.evaluation.frozen_scores import frozen_sections, unscored
from pipeline.evaluation.html_report import write_html_report
from pipeline.evaluation.report import write_results
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import FROZEN_SCORES

RESAMPLED = np.random.default_rng(0).normal(0.5, 0.1, (3, 400)).astype(np.float32)


def row(problem: str, features: str, seed: int | None, score: float | None, **changes: Any) -> dict[str, Any]:
    resampled = RESAMPLED[seed or 0].tolist()
    common = {"split": "test", "metric": "auc", "method": "logistic regression", "fraction": 1.0, "draws": 1}
    counts = {"images": 20, "patients": 5, "low": score, "high": score, "resampled": resampled, "fingerprint": "f"}
    backbone = None if seed is None else "resnet50"
    return {"problem": problem, "features": features, "backbone": backbone, "seed": seed, "score": score} | (
        common | counts | changes
    )


def rows_of(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=FROZEN_SCORES.schema)


QUALITY = rows_of(
    *(row("archive", "ce", seed, 0.6, split="val") for seed in (0, 1, 2)),
    *(
        row("quality", name, seed, score, fraction=fraction, method=method)
        for name, seed, score in (("ce", 0, 0.7), ("ce", 1, 0.8), ("ce", 2, 0.9), ("pixels", None, 0.55))
        for method in ("nearest neighbours", "logistic regression")
        for fraction in (1.0, 0.05)
    ),
    *(row("quality", "ce", seed, 0.1, split="val") for seed in (0, 1, 2)),
)


def test_a_row_is_an_encoder_with_the_mean_of_its_seeds_and_controls_stand_last(three_seeds: Recipe) -> None:
    archive, quality = frozen_sections(three_seeds, QUALITY, "test")
    assert quality.heading == "Quality: AUC, 20 test images of 5 patients"
    assert quality.table.head == ("Backbone", "Features", "Method", "100 %", "5 %")
    assert [line[:3] for line in quality.table.rows] == [
        (backbone, features, method)
        for method in ("logistic regression", "nearest neighbours")
        for backbone, features in (("ResNet-50", "CE"), ("control", "pixels"))
    ]
    low, high = np.percentile(RESAMPLED.mean(axis=0), (2.5, 97.5))
    spread = np.sqrt((0.1**2 + 0 + 0.1**2) / 2)
    assert quality.table.rows[0][3] == f"0.800 [{low:.3f}, {high:.3f}] (seeds {spread:.3f})"
    assert str(quality.table.rows[1][3]).startswith("0.550 [") and "seeds" not in str(quality.table.rows[1][3])
    assert "validation images" in archive.heading  # it has no test images


def test_the_split_that_is_asked_for_is_shown(three_seeds: Recipe) -> None:
    _, quality = frozen_sections(three_seeds, QUALITY, "val")
    assert quality.heading.startswith("Quality: AUC, 20 validation images")
    assert [str(line[3])[:5] for line in quality.table.rows] == ["0.100"]


def test_an_undefined_score_is_a_dash(recipe: Recipe) -> None:
    (section,) = frozen_sections(recipe, rows_of(row("quality", "ce", 0, None)), "test")
    assert section.table.rows[0][3] == "–"


def test_machines_and_sources_have_a_row_each_with_counts_and_a_column_per_encoder(recipe: Recipe) -> None:
    by_machine = {
        "split": "val",
        "group_by": "machine",
        "group": "ACME <b>",
        "images": 8,
        "patients": 6,
        "questions": 2,
    }
    others = {"split": "val", "group_by": "machine", "group": "3 others", "images": 4, "patients": 3}
    left_out = {"split": "val", "group_by": "source left out", "group": "1", "questions": 1}
    rows = [
        row("archive", name, seed, score, **changes)
        for name, seed, score in (("ce", 0, 0.7), ("pixels", None, 0.55))
        for changes in ({"split": "val"}, by_machine, {**by_machine, "method": "nearest neighbours"}, left_out)
    ] + [row("archive", name, seed, None, **others) for name, seed in (("ce", 0), ("pixels", None))]
    whole, machines, sources = frozen_sections(recipe, rows_of(*rows), "val")
    assert [line[1] for line in whole.table.rows] == ["CE", "pixels"]
    assert machines.heading == "The archive's own labels by machine: AUC, validation images, ResNet-50"
    assert machines.table.head == ("Machine", "Images", "Patients", "Questions", "CE", "pixels")
    first, last = machines.table.rows
    assert first[:4] == ("ACME <b>", "8", "6", "2") and [str(cell)[:5] for cell in first[4:]] == ["0.700", "0.550"]
    assert last == ("3 others", "4", "3", "–", "–", "–")
    assert "fitted on all other sources" in sources.heading and sources.table.rows[0][:4] == ("1", "20", "5", "1")


def test_every_backbone_has_its_own_table_of_machines_beside_the_same_controls(recipe: Recipe) -> None:
    group = {"group_by": "machine", "group": "ACME X"}
    encoders = [row("quality", "ce", 0, 0.7, backbone=name, **group) for name in ("resnet50", "vgg16_bn")]
    all_images = [row("quality", "ce", 0, 0.7, backbone=name) for name in ("resnet50", "vgg16_bn")]
    control = row("quality", "pixels", None, 0.5, **group)
    _, *sections = frozen_sections(recipe, rows_of(*all_images, *encoders, control), "test")
    assert [section.heading.rpartition(", ")[2] for section in sections] == ["ResNet-50", "VGG16-BN"]
    assert all(section.table.head[4:] == ("CE", "pixels") for section in sections)


def test_scores_of_an_earlier_version_are_read_without_groups(tmp_path: Path) -> None:
    earlier = QUALITY.drop_columns(["group_by", "group", "questions"])
    pq.write_table(earlier, tmp_path / "frozen_scores.parquet")
    read = frozen_scores_of(tmp_path)
    assert read.schema.names == FROZEN_SCORES.schema.names and read["group"].null_count == len(earlier)
    assert read.drop_columns(["group_by", "group", "questions"]).equals(earlier)


def test_the_interval_is_of_the_mean_of_seeds_over_the_resamples_that_have_a_score() -> None:
    both = [[0.0, 0.2, float("nan"), 0.4], [0.2, 0.4, float("nan"), 0.6]]
    assert interval(both) == pytest.approx(tuple(np.percentile([0.1, 0.3, 0.5], (2.5, 97.5))))


def test_encoders_without_a_score_are_named_with_the_reason(recipe: Recipe) -> None:
    trainings = [
        Training("resnet50", "imagenet", 0, "unavailable", "no weights", {}),
        Training("resnet50", "dcm", 0, "diverged", "the loss is nan", {}),
        Training("resnet50", "baseline", 0, "ran", "", {}),
    ]
    recipe = recipe.model_copy(
        update={"pretraining": recipe.pretraining.model_copy(update={"backbones": ("resnet50",)})}
    )
    found = unscored(recipe, trainings, rows_of(row("quality", "ce", 0, 0.5)))
    assert found == [
        "ResNet-50 Baseline (trained since: run the job `evaluate`)",
        "ResNet-50 ImageNet (unavailable: no weights)",
        "ResNet-50 DCM (diverged: the loss is nan)",
        "ResNet-50 CE+DCM (not trained)",
    ]


def test_the_report_shows_them_before_the_fine_tuned_models_if_there_are_any(recipe: Recipe, tmp_path: Path) -> None:
    store = Store(tmp_path / "store").open()
    experiment = store.experiment(recipe.name)
    without = write_results(recipe, experiment)
    before = write_html_report(recipe, store).read_text("utf-8")
    assert "frozen" not in {chapter.anchor for chapter in without.chapters} and 'id="frozen"' not in before
    FROZEN_SCORES.write(experiment.tables, rows_of(row("quality", "ce", 0, 0.71), row("quality", "pixels", None, 0.52)))
    report = write_results(recipe, experiment)
    assert [chapter.anchor for chapter in report.chapters] == ["frozen", *(one.anchor for one in without.chapters)]
    assert report.chapters[1:] == without.chapters and report.digest != without.digest
    page = write_html_report(recipe, store).read_text("utf-8")
    places = [page.index(f'<section id="{anchor}"') for anchor in ("data", "frozen", "detectable", "results")]
    assert places == sorted(places)
    chapter = page[places[1] : places[2]]
    assert "0.710 [" in chapter and "0.520 [" in chapter and "pixels" in chapter and "VGG16-BN" in chapter
