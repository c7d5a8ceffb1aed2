"""The files of a report and the command that prints it."""

import csv
import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.downstream.predictions import TEST, Cell
from pipeline.errors import UserError
from pipeline.evaluation.__main__ import main
from pipeline.evaluation.document import Chapter
from pipeline.evaluation.evidence import Evidence, Training, predictions_of
from pipeline.evaluation.html_report import write_html_report
from pipeline.evaluation.publication import Publication
from pipeline.evaluation.report import RESULTS_FILES, compute_report, read_report, write_results
from pipeline.evaluation.report_figures import draw
from pipeline.evaluation.results import cell_of, predictions_by_cell
from pipeline.files import read_table, write_table
from pipeline.recipe import Recipe
from pipeline.store import Store
from tests.pipeline.evaluation.conftest import everything, write_models


@pytest.fixture
def store(three_seeds: Recipe, tmp_path: Path) -> Store:
    """A store with outcomes and predictions; the frozen arm is better on three of ten images."""
    store = Store(tmp_path / "store").open()
    experiment = store.experiment(three_seeds.name)
    outcomes, predictions = everything(three_seeds, {"ce": 6, "ce_dcm_frozen": 9})
    write_models(experiment, outcomes, predictions)
    return store


def test_every_number_is_written_as_csv_markdown_and_latex(three_seeds: Recipe, store: Store) -> None:
    experiment = store.experiment(three_seeds.name)
    report = write_results(three_seeds, experiment)
    assert {path.name for path in experiment.reports.iterdir()} == set(RESULTS_FILES)
    rows = {
        name: list(csv.DictReader((experiment.reports / f"{name}_table.csv").open()))
        for name in ("results", "metrics", "differences", "detectable", "collapse")
    }
    assert len(rows["results"]) == len(report.results) == 2 * 3 * 2 * 2 * 3
    assert len(rows["differences"]) == 8
    assert [float(row["difference"]) for row in rows["differences"]] == pytest.approx([0.3] * 8)
    assert {row["p"] for row in rows["differences"]} == {str(row.p) for row in report.differences}
    assert len(rows["detectable"]) == 8
    assert {(row["smallest"], row["error"]) for row in rows["detectable"]} == {("", "")}, "no task has images"
    assert all(row["reason"] for row in rows["detectable"])
    assert rows["collapse"] == [], "no encoder was trained"
    assert {"mean", "sd", "seed_sd"} < set(rows["metrics"][0])
    assert {row["metric"] for row in rows["metrics"]} >= {"accuracy", "quadratic kappa", "dice", "iou liver"}


@pytest.mark.integration
def test_two_reports_of_the_same_predictions_are_the_same_bytes(three_seeds: Recipe, store: Store) -> None:
    experiment = store.experiment(three_seeds.name)
    contents = []
    for _ in range(2):
        write_results(three_seeds, experiment)
        contents.append([(experiment.reports / name).read_bytes() for name in RESULTS_FILES])
    assert contents[0] == contents[1]


def test_the_command_prints_intervals_and_p_values(
    three_seeds: Recipe,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "tiny.yaml").write_text(json.dumps(three_seeds.model_dump(mode="json")), encoding="utf-8")
    monkeypatch.setenv("SONOTAG_STORE", str(store.root))
    monkeypatch.setenv("SONOTAG_RECIPE", str(tmp_path / "tiny.yaml"))
    assert main() == 1
    assert "run the job `report`" in capsys.readouterr().err
    report = write_results(three_seeds, store.experiment(three_seeds.name))
    assert main() == 0
    printed = capsys.readouterr().out
    test = report.differences[0]
    assert f"+0.300 [{test.low:+.3f}, {test.high:+.3f}]".replace("-", "−") in printed
    assert f"| {test.p:.3f} | {test.p_holm:.3f} |" in printed
    assert "not run: no file" in printed
    assert str(store.experiment("tiny").reports / "differences_table.csv") in printed


def test_a_report_without_any_run_has_no_number(three_seeds: Recipe, tmp_path: Path) -> None:
    report = write_results(three_seeds, Store(tmp_path).experiment("tiny"))
    assert {row.mean for row in report.results} == {row.mean for row in report.summaries} == {None}
    assert {row.difference for row in report.differences} == {None}
    chapters = {chapter.anchor: chapter for chapter in report.chapters}
    assert chapters["metrics"].sections == [] and chapters["metrics"].paragraphs
    cells = [cell for section in chapters["results"].sections for row in section.table.rows for cell in row[2:]]
    assert len(cells) == 2 * 6 * 2 and set(cells) == {"not run"}, "fractions, arms of both backbones, tasks"


def test_the_table_of_constants_explains_their_fit_and_the_selection_of_the_best_arm(publication: Publication) -> None:
    (section,) = next(c for c in compute_report(publication.evidence).chapters if c.anchor == "constants").sections
    (note,) = section.notes
    assert "training images" in note and "test images" in note


def collapse_chapter(evidence: Evidence, *trainings: Training) -> Chapter:
    report = compute_report(dataclasses.replace(evidence, trainings=trainings))
    return next(chapter for chapter in report.chapters if chapter.anchor == "collapse")


def test_the_collapse_chapter_has_a_table_for_each_metric_that_a_run_recorded(publication: Publication) -> None:
    evidence = publication.evidence
    (ran, _), lost = evidence.trainings, Training("resnet50", "ce_dcm", 0, "diverged", "nan", {})
    collapse, saturation = collapse_chapter(evidence, ran, lost).sections
    assert (collapse.heading, saturation.heading != "") == ("", True)
    assert saturation.table.rows == [("ResNet-50", "CE", "1", "10 %", "33 %"), ("ResNet-50", "CE+DCM", "0", "–", "–")]
    at_weights = dataclasses.replace(ran, curves={**ran.curves, "train_adversarial_share": [0.0123, 0.5]})
    _, _, weights = collapse_chapter(evidence, at_weights).sections
    assert weights.table.rows == [("ResNet-50", "CE", "1", "1.2 %", "50.0 %")]
    at_the_patch = {"train_adversarial_share_at_the_patch": [0.2, 0.3]}
    earlier = dataclasses.replace(ran, encoder="ce_dcm", curves={**ran.curves, **at_the_patch})
    _, _, weights, patch = collapse_chapter(evidence, at_weights, earlier).sections
    assert ("ResNet-50", "CE+DCM", "0", "–", "–") in weights.table.rows, "each table has one meaning"
    assert ("ResNet-50", "CE+DCM", "1", "20.0 %", "30.0 %") in patch.table.rows
    alone = collapse_chapter(evidence, lost)
    assert alone.paragraphs == []
    assert [section.table.rows for section in alone.sections] == [
        [("ResNet-50", "CE+DCM", "0", "–", "–", "–", "– (1 diverged)")]
    ]


def test_the_page_and_the_figure_show_the_report_without_computing_it_again(
    three_seeds: Recipe, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = store.experiment(three_seeds.name)
    report = write_results(three_seeds, experiment)
    again = read_report(three_seeds, experiment)
    assert (again.markdown, again.recipe, again.digest) == (report.markdown, report.recipe, report.digest)
    assert again.minimum_effects == report.minimum_effects and again.mode_collapses == report.mode_collapses
    monkeypatch.setattr("pipeline.evaluation.differences.paired_test", None)
    monkeypatch.setattr("pipeline.evaluation.report.differences", None)
    (figure,) = draw("differences_figure", three_seeds, store)
    page = write_html_report(three_seeds, store).read_text(encoding="utf-8")
    assert figure.name == "differences.png"
    assert f"{report.differences[0].p:.3f}" in page and "data:image/png" in page


def test_a_report_that_is_missing_or_of_other_settings_is_refused(three_seeds: Recipe, store: Store) -> None:
    experiment = store.experiment(three_seeds.name)
    with pytest.raises(UserError, match=r"report\.json .*`report`"):
        read_report(three_seeds, experiment)
    write_results(three_seeds, experiment)
    settings = three_seeds.model_dump()
    settings["evaluation"]["seed"] += 1
    with pytest.raises(UserError, match=r"report\.json .*`report`"):
        read_report(Recipe.model_validate(settings), experiment)


def test_predictions_of_an_older_version_are_refused(three_seeds: Recipe, store: Store) -> None:
    experiment = store.experiment(three_seeds.name)
    path = experiment.model("resnet50", "ce", "quality", 1.0, 0) / TEST
    write_table(path, read_table(path).drop_columns(["truth_mask"]))
    with pytest.raises(UserError, match=r"predictions\.parquet .*`finetune`"):
        write_results(three_seeds, experiment)
    path.unlink()
    with pytest.raises(UserError, match=r"predictions\.parquet .*`finetune`"):
        write_results(three_seeds, experiment)


def test_a_model_in_training_has_no_number(three_seeds: Recipe, store: Store) -> None:
    """Without an outcome, tables in its folder belong to no model."""
    experiment = store.experiment(three_seeds.name)
    folder = experiment.model("resnet50", "ce", "quality", 1.0, 0)
    (folder / "outcome.json").unlink()
    unfinished = Cell(three_seeds.name, "resnet50", "ce", "quality", 1.0, 0)
    rows = {cell_of(row): row for row in write_results(three_seeds, experiment).results}
    assert (rows[unfinished].status, rows[unfinished].mean) == ("not run", None)
    assert rows[replace(unfinished, seed=1)].status == "ran"
    counted = predictions_by_cell(predictions_of(three_seeds, experiment))
    assert unfinished not in counted and replace(unfinished, seed=1) in counted
