"""The report of an experiment's folder: its files, and what the command prints."""

import csv
import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.downstream.predictions import TEST, Cell
from pipeline.errors import UserError
from pipeline.evaluation.__main__ import main
from pipeline.evaluation.mode_collapse import Training
from pipeline.evaluation.publication import Publication
from pipeline.evaluation.report import RESULTS_FILES, Evidence, predictions_of, results_report, write_results
from pipeline.evaluation.results import cell_of, predictions_by_cell
from pipeline.files import read_table, write_table
from pipeline.recipe import Recipe
from pipeline.store import Store
from tests.pipeline.evaluation.conftest import everything, write_models


@pytest.fixture
def store(three_seeds: Recipe, tmp_path: Path) -> Store:
    """A store whose experiment holds outcomes and predictions, with CE better in three of ten images."""
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
    assert {row["reason"] for row in rows["detectable"]} == {"the task has not been prepared"}
    assert rows["collapse"] == [], "no encoder was trained"
    assert {"mean", "sd", "seed_sd"} < set(rows["metrics"][0])
    assert {row["metric"] for row in rows["metrics"]} >= {"accuracy", "quadratic kappa", "dice", "iou liver"}


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
    assert "No arm ran." in report.markdown
    assert "±" not in report.markdown.split("## Is one arm")[0].split("Best of a backbone")[1]


def test_it_is_said_what_constants_were_fitted_on_and_where_the_best_arm_was_picked(publication: Publication) -> None:
    chapters = {chapter.anchor: chapter.markdown() for chapter in results_report(publication.evidence).chapters}
    assert "The constant is fitted on all training images" in chapters["constants"]
    assert "The best arm is picked on these test images" in chapters["constants"]


def collapse_text(evidence: Evidence, *trainings: Training) -> str:
    report = results_report(dataclasses.replace(evidence, trainings=trainings))
    return next(chapter.markdown() for chapter in report.chapters if chapter.anchor == "collapse")


def test_of_the_collapse_only_what_some_run_wrote_down_has_a_table(publication: Publication) -> None:
    (ran, _), lost = publication.evidence.trainings, Training("resnet50", "ce_dcm", 0, "diverged", "nan", {})
    text = collapse_text(publication.evidence, ran, lost)
    assert text.count("### ") == 1 and "### D's scores beyond the margin, mean over the runs" in text
    assert "| ResNet-50 | CE | 1 | 10 % | 33 % |" in text and "| ResNet-50 | CE+DCM | 0 | – | – |" in text
    heard = dataclasses.replace(ran, curves={**ran.curves, "train_adversarial_share": [0.0123, 0.5]})
    text = collapse_text(publication.evidence, heard)
    assert text.count("### ") == 2 and "| ResNet-50 | CE | 1 | 1.2 % | 50.0 % |" in text
    assert "at the encoder's weights" in text and "at the inpainted patches" not in text
    at_the_patch = {"train_adversarial_share_at_the_patch": [0.2, 0.3]}
    before = dataclasses.replace(ran, encoder="ce_dcm", curves={**ran.curves, **at_the_patch})
    text = collapse_text(publication.evidence, heard, before)
    assert text.count("### ") == 3 and "at the inpainted patches" in text
    assert "| ResNet-50 | CE+DCM | 1 | 20.0 % | 30.0 % |" in text, "two tables, none with both meanings"
    text = collapse_text(publication.evidence, lost)
    assert "| ResNet-50 | CE+DCM | 0 | – | – | – | – (1 diverged) |" in text
    assert "### " not in text and "No context encoder has been trained." not in text


def test_predictions_of_an_older_version_are_said_so(three_seeds: Recipe, store: Store) -> None:
    experiment = store.experiment(three_seeds.name)
    path = experiment.model("resnet50", "ce", "quality", 1.0, 0) / TEST
    write_table(path, read_table(path).drop_columns(["truth_mask"]))
    with pytest.raises(UserError, match=r"predictions\.parquet has other columns .*`finetune` again"):
        write_results(three_seeds, experiment)
    path.unlink()
    with pytest.raises(UserError, match=r"predictions\.parquet .*`finetune`"):
        write_results(three_seeds, experiment)


def test_a_model_that_is_being_made_anew_has_no_number(three_seeds: Recipe, store: Store) -> None:
    """Its tables may lie there already, or still: without an outcome they are of no model."""
    experiment = store.experiment(three_seeds.name)
    folder = experiment.model("resnet50", "ce", "quality", 1.0, 0)
    (folder / "outcome.json").unlink()
    unfinished = Cell(three_seeds.name, "resnet50", "ce", "quality", 1.0, 0)
    rows = {cell_of(row): row for row in write_results(three_seeds, experiment).results}
    assert (rows[unfinished].status, rows[unfinished].mean) == ("not run", None)
    assert rows[replace(unfinished, seed=1)].status == "ran"
    counted = predictions_by_cell(predictions_of(three_seeds, experiment))
    assert unfinished not in counted and replace(unfinished, seed=1) in counted
