"""Which networks were exposed to a patient: by the digest of their images, by their task, and in case of doubt."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.pretraining.encoder_folder import ModelCard, Preprocessing
from pipeline.privacy.training_exposure import encoders_trained_on_validation, models_exposed_to, record_training_set
from pipeline.store import Store
from pipeline.training.loop import History
from pipeline.training.outcome import Outcome

WITH_ANNA, WITHOUT = "a" * 64, "b" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with two training sets: anna and ben, and ben alone."""
    store = Store(tmp_path / "store").open()
    record_training_set(store.private, WITH_ANNA, ["ben", "anna", "anna"])
    record_training_set(store.private, WITHOUT, ["ben"])
    return store


def encoder(folder: Path, digest: str | None, status: str = "ran") -> Path:
    """An encoder's folder as pretraining leaves it; without a digest, as it is while training."""
    folder.mkdir(parents=True)
    if status == "ran":
        (folder / ("encoder.safetensors" if digest else "checkpoint.safetensors")).touch()
    if digest:
        preprocessing = Preprocessing("resnet50", 32, 32, 1.0, 1.0)
        ModelCard("ce", preprocessing, {}, digest, 1, 1, (), "", "own", History(), ()).write(folder)
        Outcome(status, "", "f").write(folder)  # type: ignore[arg-type]
    return folder


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    Outcome("ran", "", "f").write(folder)
    return folder


def task(store: Store, name: str, **sides: str) -> None:
    path = store.experiment("demo").task_images(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"patient": list(sides), "split": list(sides.values())}), path)


def test_a_training_set_is_kept_once_and_sorted(store: Store) -> None:
    folder = store.private / "training_sets"
    assert pq.read_table(folder / f"{WITH_ANNA[:16]}.parquet")["patient"].to_pylist() == ["anna", "ben"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    record_training_set(store.private, WITH_ANNA, ["anna", "ben"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert len(before) == 2


def test_encoders_that_trained_on_todays_validation_patients_are_listed(store: Store) -> None:
    record_training_set(store.private, "c" * 64, ["anna", "ben"], {"anna": "train", "ben": "val"})
    trained, unknown = (store.experiment("demo").encoder("resnet50", name, 0) for name in ("ce", "dcm"))
    encoder(trained, "c" * 64)
    encoder(unknown, WITHOUT)  # its record has no sides
    names = [folder.relative_to(store.root).as_posix() for folder in (trained, unknown)]
    assert encoders_trained_on_validation(store, ["ben"], []) == []
    assert encoders_trained_on_validation(store, ["anna", "ben"], []) == names[:1]
    assert encoders_trained_on_validation(store, ["ben"], ["ben"]) == names[1:]
    pq.write_table(pa.table({"patient": ["ben"]}), store.private / "training_sets" / f"{WITHOUT[:16]}.parquet")
    assert (
        encoders_trained_on_validation(store, ["ben"], ["ben"]) == names[1:]
        and encoders_trained_on_validation(store, ["ben"], []) == []
    )


def test_encoders_are_found_by_the_digest_they_state(store: Store) -> None:
    encoder(store.experiment("demo").encoder("resnet50", "ce", 0), WITH_ANNA)
    encoder(store.experiment("demo").encoder("resnet50", "dcm", 0), WITHOUT)
    encoder(store.experiment("paper").encoder("vgg16_bn", "ce_dcm", 0), WITH_ANNA)
    assert models_exposed_to(store, "anna") == [
        "experiments/demo/encoders/resnet50_ce_seed-0",
        "experiments/paper/encoders/vgg16_bn_ce_dcm_seed-0",
    ]
    assert models_exposed_to(store, "nobody") == []
    assert len(models_exposed_to(store, "ben")) == 3


def test_copies_in_mlflow_are_found(store: Store) -> None:
    encoder(store.mlflow / "artifacts" / "demo" / "1234" / "artifacts", WITH_ANNA)
    encoder(store.mlflow / "artifacts" / "demo" / "5678" / "artifacts", WITHOUT)
    assert models_exposed_to(store, "anna") == ["mlflow/artifacts/demo/1234/artifacts"]


def test_a_network_of_unknown_exposure_is_listed(store: Store) -> None:
    encoder(store.experiment("demo").encoder("resnet50", "ce", 0), "c" * 64)
    encoder(store.experiment("demo").encoder("resnet50", "dcm", 0), None)
    assert models_exposed_to(store, "anna") == [
        "experiments/demo/encoders/resnet50_ce_seed-0",
        "experiments/demo/encoders/resnet50_dcm_seed-0",
    ]


def test_an_encoder_without_weights_is_not_listed(store: Store) -> None:
    encoder(store.experiment("demo").encoder("resnet50", "ce", 0), WITH_ANNA, status="diverged")
    assert models_exposed_to(store, "anna") == []


@pytest.mark.parametrize(
    ("arm", "method"),
    [("ce", "ce"), ("ce_dcm", "ce_dcm"), ("ce_dcm_frozen", "ce_dcm"), ("ce_frozen", "ce"), ("imagenet", "imagenet")],
)
def test_a_model_is_exposed_to_its_encoders_patients(store: Store, arm: str, method: str) -> None:
    demo = store.experiment("demo")
    encoder(demo.encoder("resnet50", method, 0), WITH_ANNA)
    encoder(demo.encoder("vgg16_bn", method, 0), WITHOUT)
    model(demo.model("resnet50", arm, "thyroid", 0.05, 1))
    model(demo.model("vgg16_bn", arm, "thyroid", 1.0, 0))
    assert models_exposed_to(store, "anna") == [
        f"experiments/demo/encoders/resnet50_{method}_seed-0",
        f"experiments/demo/models/resnet50_{arm}_thyroid/fraction-0.05_seed-1",
    ]


@pytest.mark.parametrize(("side", "seen"), [("train", True), ("val", True), ("test", False)])
def test_a_model_is_exposed_to_its_tasks_patients_except_the_test_set(store: Store, side: str, seen: bool) -> None:
    demo = store.experiment("demo")
    encoder(demo.encoder("resnet50", "ce", 0), WITHOUT)
    model(demo.model("resnet50", "ce", "thyroid", 1, 0))
    model(demo.model("resnet50", "ce", "liver_kidney", 1, 0))
    task(store, "thyroid", anna=side, ben="train")
    task(store, "liver_kidney", ben="train")
    assert models_exposed_to(store, "anna") == ["experiments/demo/models/resnet50_ce_thyroid/fraction-1_seed-0"] * seen


def test_a_task_whose_name_begins_like_an_arm_is_distinguished_from_it(store: Store) -> None:
    demo = store.experiment("demo")
    encoder(demo.encoder("resnet50", "ce", 0), WITHOUT)
    encoder(demo.encoder("resnet50", "ce_dcm", 0), WITH_ANNA)
    model(demo.model("resnet50", "ce", "dcm_quality", 1, 0))
    task(store, "dcm_quality", ben="train")
    assert models_exposed_to(store, "anna") == ["experiments/demo/encoders/resnet50_ce_dcm_seed-0"]


def test_a_model_older_than_the_encoder_beside_it_is_listed(store: Store) -> None:
    demo = store.experiment("demo")
    folder = model(demo.model("resnet50", "ce", "thyroid", 1, 0))
    encoder(demo.encoder("resnet50", "ce", 0), WITHOUT)
    os.utime(folder / "outcome.json", ns=(1, 1))
    assert models_exposed_to(store, "anna") == ["experiments/demo/models/resnet50_ce_thyroid/fraction-1_seed-0"]


def test_a_model_without_the_encoder_that_it_was_made_from_is_listed(store: Store) -> None:
    model(store.experiment("demo").model("resnet50", "ce", "thyroid", 1, 0))
    assert models_exposed_to(store, "anna") == ["experiments/demo/models/resnet50_ce_thyroid/fraction-1_seed-0"]


@pytest.mark.parametrize(("digest", "seen"), [(WITH_ANNA, True), (WITHOUT, False), (None, True)])
def test_a_model_of_another_backbone_is_exposed_as_its_encoder(store: Store, digest: str | None, seen: bool) -> None:
    demo = store.experiment("demo")
    if digest:
        encoder(demo.encoder("resnet34", "ce", 0), digest)
    model(demo.model("resnet34", "ce_frozen", "thyroid", 1, 0))
    task(store, "thyroid", ben="train")
    assert (
        "experiments/demo/models/resnet34_ce_frozen_thyroid/fraction-1_seed-0" in models_exposed_to(store, "anna")
    ) == seen


def described(folder: Path, encoder: str, task: str) -> Path:
    (model(folder) / "model.json").write_text(json.dumps({"encoder": encoder, "task": task}))
    return folder


def test_a_model_is_exposed_to_the_patients_of_the_encoder_that_it_names(store: Store) -> None:
    """Of two seeds' encoders one was made before anna came and is older than the model, the other after."""
    demo = store.experiment("demo")
    encoder(demo.encoder("resnet50", "ce", 0), WITHOUT)
    encoder(demo.encoder("resnet50", "ce", 1), WITH_ANNA)
    described(demo.model("resnet50", "ce", "thyroid", 1, 0), "resnet50_ce_seed-0", "thyroid")
    described(demo.model("resnet50", "ce", "thyroid", 1, 1), "resnet50_ce_seed-1", "thyroid")
    assert models_exposed_to(store, "anna") == [
        "experiments/demo/encoders/resnet50_ce_seed-1",
        "experiments/demo/models/resnet50_ce_thyroid/fraction-1_seed-1",
    ]


def test_a_model_that_was_cut_short_may_be_of_any_seeds_encoder(store: Store) -> None:
    demo = store.experiment("demo")
    encoder(demo.encoder("resnet50", "ce", 0), WITHOUT)
    encoder(demo.encoder("resnet50", "ce", 1), WITH_ANNA)
    model(demo.model("resnet50", "ce", "thyroid", 1, 0))
    assert "experiments/demo/models/resnet50_ce_thyroid/fraction-1_seed-0" in models_exposed_to(store, "anna")


@pytest.mark.parametrize("says", [True, False])
def test_a_model_of_a_variant_is_exposed_to_the_variants_encoders_patients(store: Store, says: bool) -> None:
    demo = store.experiment("demo")
    encoder(demo.encoder("resnet50", "ce_dcm", 0), WITHOUT)
    encoder(demo.encoder("resnet50", "ce_dcm_shuffled", 0), WITH_ANNA)
    folder = demo.model("resnet50", "ce_dcm_shuffled", "thyroid", 1, 0)
    described(folder, "resnet50_ce_dcm_shuffled_seed-0", "thyroid") if says else model(folder)
    model(demo.model("resnet50", "ce_dcm", "thyroid", 1, 0))
    assert models_exposed_to(store, "anna") == [
        "experiments/demo/encoders/resnet50_ce_dcm_shuffled_seed-0",
        "experiments/demo/models/resnet50_ce_dcm_shuffled_thyroid/fraction-1_seed-0",
    ]


def test_an_empty_store_has_no_networks(tmp_path: Path) -> None:
    assert models_exposed_to(Store(tmp_path).open(), "anna") == []
