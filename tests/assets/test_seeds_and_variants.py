"""Two pretraining seeds and a variant of each kind, from DICOM files to the table, as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.tables import label_digest
from tests.conftest import ROOT, job_environment, run_in_process, table_path

RECIPE = """
name: seeds
images: {height: 32, width: 64}
pretraining:
  backbones: [resnet50]
  methods: [baseline]
  variants:
    ce_dcm_shuffled: {method: ce_dcm, labels: shuffled}
    ce_dcm_source: {method: ce_dcm, labels: source}
    ce_unopposed: {method: ce, lambda_adv: 0}
  seeds: [0, 1]
  epochs: 1
  batch_size: 16
downstream:
  arms: [baseline, ce_dcm_shuffled]
  seeds: [3, 4]
  tasks:
    thyroid:
      kind: segmentation
      classes: [background, nodule]
      manifest: ${SONOTAG_STORE}/phantom/downstream/thyroid.csv
      epochs: 1
      batch_size: 8
      learning_rate: {resnet50: 0.0001}
evaluation: {resamples: 100, comparisons: [{arm: ce_dcm_shuffled, against: baseline}]}
"""
VARIANTS = ("ce_dcm_shuffled", "ce_dcm_source", "ce_unopposed")
NAMES = ("baseline", *VARIANTS)
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def made(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store in which the job `demo` has run with the recipe above, and the recipe."""
    folder = tmp_path_factory.mktemp("seeds")
    recipe = folder / "seeds.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    store = folder / "store"
    store.mkdir()
    (store / "phantom").symlink_to(phantom)
    run_in_process("demo", store, SONOTAG_RECIPE=str(recipe))
    return store, recipe


def card(store: Path, name: str, seed: int) -> str:
    folder = store / "experiments" / "seeds" / "encoders" / f"resnet50_{name}_seed-{seed}"
    return (folder / "model_card.md").read_text(encoding="utf-8")


def stated(text: str, what: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(f"- {what}: ")]
    return line.partition(": ")[2]


def test_there_is_an_encoder_per_name_and_seed_and_its_card_says_what_it_was_shown(made: tuple[Path, Path]) -> None:
    store, _ = made
    folders = {path.name for path in (store / "experiments" / "seeds" / "encoders").iterdir()}
    assert folders == {f"resnet50_{name}_seed-{seed}" for name in NAMES for seed in (0, 1)}
    for seed in (0, 1):
        assert "shuffled across patients" in card(store, "ce_dcm_shuffled", seed)
        assert "which folder of the archive" in card(store, "ce_dcm_source", seed)
        assert "A control" not in card(store, "baseline", seed) + card(store, "ce_unopposed", seed)
        assert stated(card(store, "ce_unopposed", seed), "lambda_adv") == "0.0"
        assert stated(card(store, "baseline", seed), "seed") == str(seed)
    pool = pq.read_table(table_path(store, "pretraining_pool"))
    shuffled = [stated(card(store, "ce_dcm_shuffled", seed), "digest of labels") for seed in (0, 1)]
    assert len({label_digest(pool), *shuffled}) == 3
    sources = stated(card(store, "ce_dcm_source", 0), "label space").split(", ")
    folders_of_archive = sum(path.is_dir() for path in (store / "phantom" / "archive").iterdir())
    assert sources == [f"source {number + 1}" for number in range(len(sources))], "folders can be called after people"
    assert 1 <= len(sources) <= folders_of_archive + 1


def test_a_fine_tuning_seed_starts_from_the_encoder_of_its_turn(made: tuple[Path, Path]) -> None:
    from pipeline.pretraining.encoder_folder import encoder_digest

    experiment = made[0] / "experiments" / "seeds"
    for name in ("baseline", "ce_dcm_shuffled"):
        for tuned, pretrained in ((3, 0), (4, 1)):
            model = experiment / "models" / f"resnet50_{name}_thyroid" / f"fraction-1_seed-{tuned}"
            encoder = f"resnet50_{name}_seed-{pretrained}"
            assert json.loads((model / "model.json").read_text())["encoder"] == encoder
            written = pq.read_schema(model / "validation.parquet").metadata[b"encoder_digest"].decode()
            assert written == encoder_digest(experiment / "encoders" / encoder)


def test_mlflow_has_a_child_run_per_seed_and_every_seeds_encoder_as_a_version(made: tuple[Path, Path]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{made[0] / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("seeds")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=500)}
    for name in NAMES:
        asset = f"resnet50_{name}_encoder"
        versions = client.search_model_versions(f"name = 'seeds.{asset}'")
        assert {version.tags["seed"] for version in versions} == {"0", "1"}
        for seed in (0, 1):
            child = runs[f"{asset}, seed {seed}"]
            assert child.data.tags["mlflow.parentRunId"] == runs[asset].info.run_id
            assert child.data.params["seed"] == str(seed)
            assert len(client.get_metric_history(child.info.run_id, "val_loss")) == (name != "baseline")
            if name in ("ce_dcm_shuffled", "ce_dcm_source"):
                assert child.data.params["label_digest"] == stated(card(made[0], name, seed), "digest of labels")
    shuffled = runs["resnet50_ce_dcm_shuffled_encoder, seed 0"]
    assert {data.dataset.name for data in shuffled.inputs.dataset_inputs} == {
        "pretraining images",
        "weak labels, shuffled across patients",
    }


def test_the_report_names_variants_by_what_they_change_and_every_seed(made: tuple[Path, Path]) -> None:
    reports = made[0] / "experiments" / "seeds" / "reports"
    text = (reports / "results_table.md").read_text(encoding="utf-8")
    assert "CE+DCM, labels shuffled − Baseline" in text
    for label in ("CE+DCM, labels shuffled", "CE+DCM, sources as labels", "CE, lambda_adv 0"):
        for seed in (0, 1):
            assert f"| ResNet-50 | {label} | {seed} | " in text, "inpainting, seed by seed"
    page = (reports / "report.html").read_text(encoding="utf-8")
    assert "of 2 pretraining seeds the first, 0" in page
    assert "pretrained with 2 seeds" in page


def test_the_command_finds_all_of_them_done(made: tuple[Path, Path]) -> None:
    """It reads sources and draws labels anew: what the assets trained is what it would train."""
    store, recipe = made
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.pretraining", "--recipe", str(recipe)],
        cwd=ROOT,
        env=job_environment(store),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("nothing has changed, ran before") == len(NAMES) * 2
    assert "resnet50 ce_dcm_source, seed 1: nothing has changed" in done.stdout


def test_a_new_mapping_makes_the_encoders_stale_that_are_shown_what_follows_from_it(tmp_path: Path) -> None:
    from assets.labels import MappingVersion
    from assets.pretraining import encoder_assets
    from pipeline.recipe import load_recipe

    path = tmp_path / "seeds.yaml"
    path.write_text(RECIPE, encoding="utf-8")

    def versions(meaning: str, text: str = RECIPE) -> dict[str, str | None]:
        path.write_text(text, encoding="utf-8")
        made = encoder_assets(load_recipe(str(path), {}), MappingVersion(meaning=meaning, membership="m", probes=""))
        specs = [spec for asset in made for spec in asset.specs]
        return {spec.key.path[-1]: spec.code_version for spec in specs if spec.key.path[-1] != "preflight"}

    before, after = versions("one"), versions("two")
    assert {name for name in before if before[name] != after[name]} == {"resnet50_ce_dcm_shuffled_encoder"}
    more = versions("one", RECIPE.replace("lambda_adv: 0", "lambda_adv: 0.5"))
    assert {name for name in before if before[name] != more[name]} == {"resnet50_ce_unopposed_encoder"}
    again = versions("one", RECIPE.replace("seeds: [0, 1]", "seeds: [0, 2]"))
    assert not set(before.values()) & set(again.values())
