"""A test image that was pretrained on stops fine-tuning: a blocking check of every fine-tuned asset, in real jobs."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from assets.definitions import build_defs
from assets.failures import KIND, STEP
from resources.environment import read_environment
from tests.conftest import keys_of, run_job
from tests.pipeline.archive.synthetic import noise, write_dicom

pytestmark = pytest.mark.integration

CHECK, ASSET = "no_test_image_in_pool", "resnet50_baseline_quality"
SENTENCE = (
    "Task quality: 1 of 2 test images share patient or pixels with the pretraining pool, as it is now or as "
    "resnet50_baseline_encoder was made from it."
)
RECIPE = """
name: apart
images: {height: 32, width: 64}
pretraining: {backbones: [resnet50], methods: [baseline], epochs: 1, batch_size: 4}
downstream:
  arms: [baseline]
  tasks:
    quality:
      kind: ordinal
      classes: [poor, good]
      manifest: quality.csv
      epochs: 1
      batch_size: 4
      learning_rate: {resnet50: 0.0001}
"""


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which archive, pool and encoder of eight patients are made, beside a labelled set of eight others."""
    folder = tmp_path_factory.mktemp("apart")
    for number in range(8):
        tags = {"StudyDescription": "US THYROID BIOPSY", "TransducerType": "LINEAR", "PatientID": f"P{number}"}
        tags |= {"IssuerOfPatientID": "HOSP"} if number == 5 else {}
        write_dicom(folder / "archive" / str(number), noise(64, 96, seed=number), **tags)
        Image.fromarray(noise(64, 96, seed=100 + number)).save(folder / f"{number}.png")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    write_manifest(folder)
    for job in ("ingest", "pretrain"):
        assert job_of(folder, job).execute_in_process(instance=dg.DagsterInstance.ephemeral()).success
    return folder


@pytest.fixture(autouse=True)
def _manifest_as_it_was(clinic: Path) -> Iterator[None]:
    yield
    write_manifest(clinic)


def write_manifest(folder: Path, image: str = "7.png", patient: str = "Q7", split: str = "test") -> None:
    """Five images to train on, one to validate on, two to test on; the last one is as asked."""
    sides = ["train"] * 5 + ["val", "test"]
    rows = [f"{number}.png,Q{number},{number % 2},{side}" for number, side in enumerate(sides)]
    lines = ["image,patient,quality,split", *rows, f"{image},{patient},1,{split}"]
    (folder / "quality.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def variables(folder: Path) -> dict[str, str]:
    named = {"STORE": "store", "ARCHIVE": "archive", "RECIPE": "recipe.yaml"}
    return {f"SONOTAG_{name}": str(folder / place) for name, place in named.items()}


def definitions_of(folder: Path) -> dg.Definitions:
    return build_defs(read_environment(variables(folder)))


def job_of(folder: Path, name: str) -> dg.JobDefinition:
    return definitions_of(folder).resolve_job_def(name)


def materialize(folder: Path, *assets: str) -> dg.ExecuteInProcessResult:
    """The job `finetune`, or some of its assets alone."""
    keys = keys_of(definitions_of(folder), *assets) or None
    instance = dg.DagsterInstance.ephemeral()
    return job_of(folder, "finetune").execute_in_process(instance=instance, asset_selection=keys, raise_on_error=False)


def check_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (evaluation,) = [
        e for e in result.get_asset_check_evaluations() if (e.check_name, e.asset_key.path[-1]) == (CHECK, ASSET)
    ]
    return evaluation


def said(result: dg.ExecuteInProcessResult) -> str:
    """The sentence that the run failed with."""
    (failed,) = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert failed.step_key == ASSET
    return str(failed.step_failure_data.user_failure_data.description)


def repeat_pixels(folder: Path) -> None:
    """The last test image is a file of the archive, handed in under a name of its own."""
    shutil.copy(folder / "archive" / "3", folder / "again.dcm")
    write_manifest(folder, image="again.dcm")


def share_a_patient(folder: Path) -> None:
    write_manifest(folder, patient="P3")


def share_a_patient_whose_number_has_an_issuer(folder: Path) -> None:
    write_manifest(folder, patient="p5")


def test_a_set_that_is_apart_passes_and_is_trained_on(clinic: Path) -> None:
    result = materialize(clinic)
    assert result.success
    evaluation = check_of(result)
    assert evaluation.passed
    assert evaluation.metadata["images in the pool"].value == 8
    assert result.asset_materializations_for_node(ASSET)


@pytest.mark.parametrize("leak", [repeat_pixels, share_a_patient, share_a_patient_whose_number_has_an_issuer])
def test_a_test_image_of_the_pool_stops_fine_tuning_before_anything_is_trained(
    leak: Callable[[Path], None], clinic: Path
) -> None:
    leak(clinic)
    models = clinic / "store" / "experiments" / "apart" / "models"
    shutil.rmtree(models, ignore_errors=True)
    result = materialize(clinic)
    assert not result.success
    evaluation = check_of(result)
    assert (evaluation.passed, evaluation.blocking) == (False, True)
    assert evaluation.severity == dg.AssetCheckSeverity.ERROR
    assert evaluation.metadata["shared"].value == 1
    assert said(result) == SENTENCE
    assert not result.asset_materializations_for_node(ASSET)
    assert not models.exists()


@pytest.mark.parametrize("leak", [repeat_pixels, share_a_patient])
def test_it_is_asked_again_where_the_fine_tuned_asset_alone_is_materialized(
    leak: Callable[[Path], None], clinic: Path
) -> None:
    leak(clinic)
    assert materialize(clinic, "quality_images").success
    result = materialize(clinic, ASSET)
    assert not result.success
    assert not check_of(result).passed
    assert said(result) == SENTENCE


def test_the_run_says_that_it_is_a_mistake_to_mend_and_where(clinic: Path) -> None:
    share_a_patient(clinic)
    with dg.DagsterInstance.ephemeral() as instance:
        result = job_of(clinic, "finetune").execute_in_process(instance=instance, raise_on_error=False)
        run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert (run.tags[STEP], run.tags[KIND]) == (ASSET, "mistake")
    assert "P3" not in str(run.tags)


def test_a_training_image_may_be_of_the_pool(clinic: Path) -> None:
    write_manifest(clinic, patient="P3", split="train")
    assert check_of(materialize(clinic)).passed


def test_the_command_says_it_in_a_sentence_and_exits_with_1(clinic: Path) -> None:
    share_a_patient(clinic)
    changes = {name: value for name, value in variables(clinic).items() if name != "SONOTAG_STORE"}
    done = run_job("finetune", clinic / "store", **changes)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].endswith(SENTENCE)
    assert f"check {CHECK} did not pass (error)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "P3" not in done.stderr


def test_a_patient_whom_the_encoder_saw_counts_also_after_leaving_the_archive(clinic: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clinic, tmp_path / "clinic")
    (folder / "archive" / "3").unlink()
    share_a_patient(folder)
    ingested = job_of(folder, "ingest").execute_in_process(instance=dg.DagsterInstance.ephemeral())
    assert ingested.success
    result = materialize(folder)
    assert not result.success
    evaluation = check_of(result)
    assert evaluation.metadata["images in the pool"].value == 7
    assert evaluation.metadata["shared"].value == 1
    assert said(result) == SENTENCE
