"""From DICOM files to the results table by the command line: what is there afterwards, and what a second run does."""

import csv
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from pipeline.archive.listing import locate
from tests.conftest import ROOT, job_environment, plain_bytes, run_job, table_path

pytestmark = pytest.mark.timeout(900)  # the first test waits for the whole run
EXPERIMENT = "experiments/tiny"
ARMS = ("baseline", "imagenet", "dcm", "ce", "ce_dcm", "ce_dcm_frozen")


def table(store: Path, name: str) -> list[dict]:
    return pq.read_table(table_path(store, name)).to_pylist()


def results(store: Path) -> list[dict[str, str]]:
    with open(store / EXPERIMENT / "reports" / "results_table.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_file_is_a_record_or_is_rejected_for_the_planted_reason(demo_store: Path) -> None:
    archive = demo_store / "phantom" / "archive"
    files = sum(path.is_file() and path.suffix != ".ZIP" for path in archive.rglob("*")) + 3  # the zip's members
    records, rejected = table(demo_store, "dicom_index"), table(demo_store, "rejected_files")
    assert files == len(records) + len(rejected)
    with open(demo_store / "phantom" / "ground_truth" / "rejections.csv", encoding="utf-8") as file:
        planted = {(row["path"], row["frame"]): row["reason"] for row in csv.DictReader(file)}
    found = {}
    for row in table(demo_store, "quarantine"):
        path = Path(locate(demo_store / "private", row["id"])).resolve().relative_to(archive.resolve())
        found[path.as_posix(), row["id"].partition(":")[2]] = row["reason"]
    assert found == planted


def test_no_patient_is_on_both_sides_and_one_in_five_validates(demo_store: Path) -> None:
    splits = table(demo_store, "patient_splits")
    assert set(splits[0]) == {"patient", "split"}
    patients = [row["patient"] for row in splits]
    assert len(set(patients)) == len(patients) == len({row["patient"] for row in table(demo_store, "dicom_index")})
    assert sum(row["split"] == "val" for row in splits) == round(0.2 * len(splits))
    side = {row["patient"]: row["split"] for row in splits}
    assert all(row["split"] == side[row["patient"]] for row in table(demo_store, "pretraining_pool"))


def test_an_unmapped_description_never_trains(demo_store: Path) -> None:
    unmapped = {row["study_description"] for row in table(demo_store, "unmapped_descriptions")}
    assert unmapped
    descriptions = {row["sop_instance"]: row["study_description"] for row in table(demo_store, "dicom_index")}
    pool = table(demo_store, "pretraining_pool")
    assert not unmapped & {descriptions[row["sop_instance"]] for row in pool}
    labels = [name for name in pool[0] if name in ("liver", "kidney", "thyroid", "abdomen", "chest")]
    assert len(labels) == 5
    assert all(row["linear"] + row["curvilinear"] == 1 for row in pool)


def test_the_results_table_has_one_row_per_cell_and_says_what_did_not_run(demo_store: Path) -> None:
    rows = results(demo_store)
    assert list(rows[0]) == (
        [
            "recipe",
            "backbone",
            "arm",
            "task",
            "metric",
            "fraction",
            "seed",
            "mean",
            "sd",
            "n_train",
            "n_test",
            "status",
            "reason",
        ]
    )
    assert len(rows) == len(ARMS) * 2 * 2
    for row in rows:
        if row["arm"] == "imagenet":
            assert (row["status"], row["mean"]) == ("not run", "")
            assert "weights" in row["reason"]
        else:
            assert row["status"] == "ran"
            assert 0 <= float(row["mean"]) <= 1
            assert float(row["sd"]) >= 0
    assert "not run" in (demo_store / EXPERIMENT / "reports" / "results_table.md").read_text()


def test_numbers_come_from_the_predictions(demo_store: Path) -> None:
    """Dice of one cell, recomputed from the overlap counts by hand."""
    wanted = ("ce", "thyroid", "1.0")
    (row,) = [r for r in results(demo_store) if (r["arm"], r["task"], r["fraction"]) == wanted]
    model = demo_store / EXPERIMENT / "models" / "resnet50_ce_thyroid" / "fraction-1_seed-0"
    cell = pq.read_table(model / "predictions.parquet").to_pylist()
    dice = []
    for image in cell:
        overlap, size = image["intersection"][0], image["predicted_pixels"][0] + image["truth_pixels"][0]
        dice.append(2 * overlap / size if size else 1.0)
    assert int(row["n_test"]) == len(cell)
    assert float(row["mean"]) == pytest.approx(sum(dice) / len(dice), abs=1e-12)


def test_reports_and_encoders_are_complete(demo_store: Path) -> None:
    reports = {path.name for path in (demo_store / EXPERIMENT / "reports").iterdir()}
    assert reports >= {"results_table.csv", "results_table.md", "dataset_table.csv", "dataset_table.md"}
    assert reports >= {"metrics_table.csv", "differences_table.csv", "results_table.tex"}
    assert reports >= {"inpainting.png", "training_curves.png", "boxplots.png", "differences.png", "report.html"}
    assert reports >= {"detectable_table.csv", "collapse_table.csv", "report.json", "embedding_maps.png"}
    for fraction in ("1", "0.5"):
        assert reports >= {f"confusion_quality_fraction-{fraction}.png", f"overlays_thyroid_fraction-{fraction}.png"}
    for method in ("baseline", "dcm", "ce", "ce_dcm"):
        names = {path.name for path in (demo_store / EXPERIMENT / "encoders" / f"resnet50_{method}_seed-0").iterdir()}
        assert names >= {
            "encoder.safetensors",
            "encoder.onnx",
            "preprocessing.json",
            "model_card.md",
            "outcome.json",
        }, method
    unavailable = demo_store / EXPERIMENT / "encoders" / "resnet50_imagenet_seed-0"
    assert json.loads((unavailable / "outcome.json").read_text())["status"] == "unavailable"


def test_the_page_holds_the_table_and_every_figure_and_no_path(demo_store: Path) -> None:
    reports = demo_store / EXPERIMENT / "reports"
    page = (reports / "report.html").read_text(encoding="utf-8")
    assert page.count("<img ") == len(list(reports.glob("*.png"))) == 10
    for row in results(demo_store):
        if row["status"] != "ran":
            assert row["reason"] in html.unescape(page)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert f"{float(results(demo_store)[0]['mean']):.3f}" in " ".join(cells)
    assert str(demo_store) not in page and str(ROOT) not in page


@pytest.mark.integration
def test_the_experiment_is_published_as_numbers_that_give_the_same_report(
    demo_store: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    """The document's tables are those of the store's own report; patients and pixels stay in the store."""
    document = tmp_path / "replication.md"
    names = ("frozen", "detectable", "results", "differences", "metrics", "constants", "inpainting", "collapse", "cost")
    document.write_text("".join(f"<!-- table: {name} --><!-- end -->\n" for name in names).replace("--><", "-->\n<"))
    environment = job_environment(demo_store, {"SONOTAG_RECIPE": str(tiny_recipe)})
    folder = str(tmp_path / "replication")
    for command in ("publish", "replication"):
        run = [sys.executable, "-m", f"pipeline.evaluation.{command}", folder]
        subprocess.run(run, cwd=ROOT, env=environment, check=True)
        published = document.read_text(encoding="utf-8")
        report = (demo_store / EXPERIMENT / "reports" / "results_table.md").read_text(encoding="utf-8")
        rows = [line for line in report.splitlines() if line.startswith("|")]
        assert len(rows) > 40 and [row for row in rows if row not in published] == [], command
    facts = json.loads((tmp_path / "replication" / "experiment.json").read_text())
    assert all(row["seconds"] > 0 for row in (*facts["outcomes"], *facts["trainings"]) if row["status"] == "ran")
    patients = {row["patient"] for row in table(demo_store, "dicom_index")}
    for path in (demo_store / EXPERIMENT / "tasks").glob("*.parquet"):
        patients |= set(pq.read_table(path, columns=["patient"])["patient"].to_pylist())
    for path in (tmp_path / "replication").glob("*.parquet"):
        texts = [c.unique().to_pylist() for c in pq.read_table(path).columns if str(c.type) == "string"]
        assert not patients & {text for column in texts for text in column}
    assert str(demo_store) not in str(facts) and str(ROOT) not in str(facts)


@pytest.mark.integration
def test_an_experiment_is_not_published_beside_the_data_of_another_pool(
    demo_store: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    """The pool has lost an image since the encoders were trained, and its checks have passed on that."""
    store = tmp_path / "store"
    shutil.copytree(demo_store, store)
    pool = table_path(store, "pretraining_pool")
    pq.write_table(pq.read_table(pool).slice(1), pool)
    digest = hashlib.sha256(pool.read_bytes()).hexdigest()
    for path in (store / EXPERIMENT / "checks").glob("pretraining_pool.*.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "looked_at": {pool.relative_to(store).as_posix(): digest}}))
    run = subprocess.run(
        [sys.executable, "-m", "pipeline.evaluation.publish", str(tmp_path / "replication")],
        cwd=ROOT,
        env=job_environment(store, {"SONOTAG_RECIPE": str(tiny_recipe)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1 and run.stderr.count("\n") == 1
    assert "baseline, seed 0, " in run.stderr and "`pretrain`" in run.stderr
    assert not (tmp_path / "replication").exists()


def test_every_materialization_has_its_mlflow_run(demo_store: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{demo_store / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=1000)}
    assert set(runs) >= {"index_archive", "cache_images", "pool_images", "resnet50_ce_dcm_encoder"}
    assert set(runs) >= {f"resnet50_{arm}_thyroid" for arm in ARMS} | {"results_table", "inpainting_figure"}
    scores = {
        name: value for name, value in runs["frozen_scores"].data.metrics.items() if not name.startswith("system/")
    }
    assert 0 <= scores["thyroid.test.resnet50.ce.seed-0.linear masks.fraction-0.05"] <= 1
    of_all_images = [row for row in table(demo_store, "frozen_scores") if row["group_by"] is None]
    assert len(scores) == sum(row["score"] is not None for row in of_all_images)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    page = runs["html_report"].info.run_id
    assert [artifact.path for artifact in client.list_artifacts(page)] == ["report.html"]
    encoder = runs["resnet50_ce_dcm_encoder"]
    assert encoder.data.params["method"] == "ce_dcm"
    assert "val_loss" in encoder.data.metrics
    assert {"accuracy.linear", "accuracy.soft tissue"} <= set(runs["resnet50_dcm_encoder"].data.metrics)
    assert {"dagster.run_id", "code_version", "data_version.resnet50_ce_dcm_encoder"} <= set(encoder.data.tags)
    assert len({run.data.tags["dagster.run_id"] for run in runs.values()}) == 1, "one tag finds all of a Dagster run"
    pool = table(demo_store, "pretraining_pool")
    inputs = {data.dataset.name: data.dataset for data in encoder.inputs.dataset_inputs}
    assert set(inputs) == {"pretraining images", "weak labels"}
    assert json.loads(inputs["pretraining images"].profile)["images.val"] == sum(row["split"] == "val" for row in pool)
    assert encoder.data.params["image_digest"].startswith(inputs["pretraining images"].digest)
    cell = runs["resnet50_ce_thyroid, 50% of the images, seed 0"]
    assert cell.data.tags["mlflow.parentRunId"] == runs["resnet50_ce_thyroid"].info.run_id
    assert [data.dataset.name for data in cell.inputs.dataset_inputs] == ["thyroid images"]
    assert not any((demo_store / "mlflow" / "unsent").iterdir())


def test_every_encoder_is_registered_and_each_task_has_its_champion(demo_store: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{demo_store / 'mlflow' / 'mlflow.db'}")
    models = {model.name for model in client.search_registered_models()}
    ran = ("baseline", "dcm", "ce", "ce_dcm")
    assert models == {*(f"tiny.resnet50_{method}_encoder" for method in ran), "tiny.quality", "tiny.thyroid"}
    for task in ("quality", "thyroid"):
        remembered = json.loads((demo_store / EXPERIMENT / "champions" / f"{task}.json").read_text())
        champion = client.get_model_version_by_alias(f"tiny.{task}", "champion")
        assert champion.tags["arm"] == remembered["arm"]
        assert champion.tags["encoder_digest"] == remembered["encoder"]
        method = remembered["arm"].removesuffix("_frozen")
        (version,) = client.search_model_versions(f"name = 'tiny.resnet50_{method}_encoder'")
        assert version.source == champion.source
        assert Path(champion.source.removeprefix("file://"), "model.onnx").is_file()


def identifiers_of(archive: Path) -> set[bytes]:
    """Patients' names and IDs as pydicom reads them, and their files' folders in the archive; no short ones."""
    paths = [path for path in archive.rglob("*") if path.is_file()]
    found = {str(path.parent.relative_to(archive)) for path in paths if path.parent.parent != archive}
    for path in paths:
        with suppress(InvalidDicomError):
            header = dcmread(path, specific_tags=["PatientName", "PatientID"], stop_before_pixels=True)
            found |= {str(header.get(keyword, "")) for keyword in ("PatientName", "PatientID")}
    return {value.encode() for value in found if len(value) > 5}


def test_no_patient_name_or_path_is_on_the_console_or_in_a_table(demo_store: Path) -> None:
    secrets = identifiers_of(demo_store / "phantom" / "archive")
    assert len(secrets) >= 2 * 14  # a name and a folder of each of the phantom clinic's patients
    seen = [demo_store / "demo.log", *demo_store.glob("tables/*"), *demo_store.glob(f"{EXPERIMENT}/**/*.parquet")]
    seen += [*demo_store.glob(f"{EXPERIMENT}/reports/*"), demo_store / "mlflow" / "mlflow.db"]
    seen += list((demo_store / "dagster").rglob("*.db"))
    index = table_path(demo_store, "dicom_index")
    assert table(demo_store, "dicom_index")[0]["patient"].encode() in plain_bytes(index), "a cell's text is found"
    for path in seen:
        content = plain_bytes(path)
        assert not [secret for secret in secrets if secret in content], path


@pytest.mark.integration
def test_a_second_run_trains_nothing_again(demo_store: Path, tiny_recipe: Path) -> None:
    experiment = demo_store / EXPERIMENT
    tracked = [*experiment.glob("encoders/*/*.safetensors"), *experiment.glob("models/*/*/*.safetensors")]
    before = {path: path.stat().st_mtime_ns for path in tracked}
    table_bytes = {path: path.read_bytes() for path in demo_store.rglob("tables/*.parquet")}
    done = run_job("demo", demo_store, SONOTAG_RECIPE=str(tiny_recipe))
    assert done.returncode == 0, done.stderr[-2000:]
    assert before
    assert before == {path: path.stat().st_mtime_ns for path in tracked}
    assert table_bytes == {path: path.read_bytes() for path in demo_store.rglob("tables/*.parquet")}


@pytest.mark.slow  # some thirty processes, one for each step and check
@pytest.mark.integration
def test_jobs_run_one_after_the_other_and_with_a_process_per_step(
    demo_store: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "phantom").symlink_to((demo_store / "phantom").resolve())
    config = tmp_path / "multiprocess.yaml"
    config.write_text("execution: {config: {multiprocess: {max_concurrent: 2}}}\n")
    done = run_job("ingest", store, "-c", str(config), SONOTAG_RECIPE=str(tiny_recipe))
    assert done.returncode == 0, done.stderr[-2000:]
    for path in demo_store.rglob("tables/*.parquet"):
        if path.stem not in {"frozen_scores", "embeddings"}:  # of a later job
            assert path.read_bytes() == table_path(store, path.stem).read_bytes(), path.name


@pytest.mark.integration
@pytest.mark.parametrize("job", ["pretrain", "finetune"])
def test_a_job_whose_forerunner_has_not_run_says_which(job: str, tiny_recipe: Path, tmp_path: Path) -> None:
    done = run_job(job, tmp_path / "store", SONOTAG_RECIPE=str(tiny_recipe))
    assert done.returncode != 0
    assert "Stack Trace" not in done.stderr
    assert "does not exist" in done.stderr


def test_the_report_command_prints_the_table_or_says_what_to_run(
    demo_store: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pipeline.evaluation"]

    def report(store: Path) -> "subprocess.CompletedProcess[str]":
        environment = job_environment(store, {"SONOTAG_RECIPE": str(tiny_recipe)})
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    printed = report(demo_store)
    assert printed.returncode == 0
    assert "| ResNet-50 | CE+DCM |" in printed.stdout
    assert "inpainting.png" in printed.stdout
    _, _, gained = printed.stdout.rpartition(f"{demo_store / EXPERIMENT / 'reports' / 'report.html'}\n")
    assert gained.startswith("\n### What was gained\n") and "CE+DCM − Baseline" in gained
    missing = report(tmp_path / "empty")
    assert missing.returncode == 1
    assert missing.stderr.count("\n") == 1
    assert "results_table.md does not exist" in missing.stderr and "`report`" in missing.stderr


def test_a_rejected_file_is_found_again_by_its_id(demo_store: Path) -> None:
    file_id = next(row["id"] for row in table(demo_store, "quarantine") if row["reason"] == "not_dicom")
    command = [sys.executable, "-m", "pipeline.archive", "locate", file_id]
    environment = job_environment(demo_store)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).suffix == ".TXT"
