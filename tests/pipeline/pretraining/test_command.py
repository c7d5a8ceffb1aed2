"""`python -m pipeline.pretraining` on a store, as on a machine with only this package and the images.

Belongs here: the command, and loading the pool. Not here: training.
"""

import json
import os
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.blocking_checks import POOL, Check, attempt
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.images.cache import (
    CachedImage,
    CroppedImage,
    cache_description,
    cache_folder,
    shard_name,
    shard_of,
    write_shard,
)
from pipeline.pretraining.__main__ import main
from pipeline.pretraining.pool import load_pool
from pipeline.recipe import Recipe, load_recipe
from pipeline.store import Store
from pipeline.tables import image_digest, label_digest, pretraining_pool_table
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

RECIPE = """
name: small
labels: {sources: [{kind: study_groups, groups: [liver, kidney]}]}
images: {height: 32, width: 32}
pretraining: {backbones: [resnet50], methods: [baseline, ce_dcm], epochs: 2, batch_size: 4}
downstream: {arms: [baseline, ce_dcm]}
"""
VARIANTS = RECIPE.replace(
    "epochs: 2",
    "epochs: 2, seeds: [3, 8], variants: {shuffled: {method: ce_dcm, labels: shuffled}, "
    "by_source: {method: dcm, labels: source}}",
)
METHODS = ("baseline", "ce_dcm")
PASSED = Check(asset=POOL, check="no_patient_on_both_sides", group="cohort")
COUNT = 8
SPLIT = ["train", "val", "train", "train", "val", "train", "train", "train"]
LIVER = [1, 0, 1, None, 0, 1, 0, 1]


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)


def write_store(root: Path, recipe: Recipe):
    """The three things that a machine for training needs: the pool's table, its checks' results and the image cache."""
    instances = [sha256(bytes([number])).hexdigest()[:32] for number in range(COUNT)]
    folder = cache_folder(root / "images", recipe.images, recipe.archive)
    write_json(folder / "cache.json", cache_description(recipe.images, recipe.archive))
    places = {}
    for shard in sorted(set(map(shard_of, instances))):
        inside = sorted(instance for instance in instances if shard_of(instance) == shard)
        images = [CachedImage(i, 0, CroppedImage(pixels(instances.index(i)), "", "whole", None, None)) for i in inside]
        write_shard(folder / shard_name(shard), images, 32, 32)
        places |= {instance: (shard_name(shard), row) for row, instance in enumerate(inside)}
    rows = [
        {
            "sop_instance": instance,
            "frame": 0,
            "patient": f"p{number}",
            "shard": places[instance][0],
            "position": places[instance][1],
            "image_digest": sha256(pixels(number).tobytes()).hexdigest(),
            "source_digest": "",
            "split": SPLIT[number],
            "liver": LIVER[number],
            "kidney": 1,
        }
        for number, instance in enumerate(instances)
    ]
    table = pretraining_pool_table(recipe.labels.names)
    tables = Store(root).experiment(recipe.name).tables
    table.write(tables, pa.Table.from_pylist(rows, table.schema), recipe)
    with attempt(Store(root), recipe.name, [POOL], [PASSED]) as here:
        here.record(PASSED, True, "")


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def store(tmp_path, recipe):
    write_store(tmp_path / "store", load_recipe(str(recipe)))
    return tmp_path / "store"


def command(store, recipe, *more):
    return ["--store", str(store), "--recipe", str(recipe), *more]


def test_the_pool_is_the_tables_rows_with_their_pixels_from_the_cache(store, recipe):
    pool = load_pool(Store(store), load_recipe(str(recipe)))
    (images,) = pool.images.batches([torch.arange(COUNT)])
    assert all(np.array_equal(images[number], pixels(number)) for number in range(COUNT))
    assert pool.train.tolist() == [0, 2, 3, 5, 6, 7]
    assert pool.val.tolist() == [1, 4]
    assert pool.labels_NL[:, 0].tolist() == [1, 0, 1, 0, 0, 1, 0, 1]
    assert pool.known_NL[:, 0].tolist() == [True, True, True, False, True, True, True, True]
    rows = pretraining_pool_table(("liver", "kidney")).read(store / "experiments/small/tables")
    assert (pool.image_digest, pool.label_digest) == (image_digest(rows), label_digest(rows))


@pytest.mark.usefixtures("tiny_backbone")
def test_a_recipes_encoders_are_trained_into_the_store_and_logged(store, recipe, capsys):
    assert main(command(store, recipe)) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0] == f"8 images of 32 x 32 pixels from {store}"
    told = [line for line in lines if line.startswith("resnet50 ce_dcm: epoch ")]
    assert [line.split(":")[1] for line in told] == [" epoch 1 of 2", " epoch 2 of 2"]
    assert all("val_loss" in line for line in told)
    folders = {method: store / "experiments" / "small" / "encoders" / f"resnet50_{method}_seed-0" for method in METHODS}
    assert [line for line in lines if ": ran, in " in line] == [
        f"resnet50 {method}: ran, in {folder}" for method, folder in folders.items()
    ]
    for folder in folders.values():
        assert json.loads((folder / "outcome.json").read_text())["status"] == "ran"


@pytest.mark.usefixtures("tiny_backbone")
def test_one_encoder_can_be_named_and_is_not_trained_twice(store, recipe, capsys):
    for line in ("resnet50 dcm: epoch 1 of 2: ", "resnet50 dcm: nothing has changed, ran before"):
        assert main(command(store, recipe, "--method", "dcm", "--backbone", "resnet50")) == 0
        assert line in capsys.readouterr().out
    assert [path.name for path in (store / "experiments" / "small" / "encoders").iterdir()] == ["resnet50_dcm_seed-0"]


@pytest.mark.usefixtures("tiny_backbone")
def test_a_preflight_estimates_the_cost_and_trains_nothing(store, recipe, capsys):
    assert main(command(store, recipe, "--preflight")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["Preflight, resnet50 ce_dcm", "Preflight"]
    assert not list(store.rglob("encoders"))


def test_an_unavailable_encoder_is_an_outcome_with_its_reason(store, recipe, capsys):
    assert main(command(store, recipe, "--method", "imagenet")) == 0
    assert "resnet50 imagenet: unavailable: ImageNet weights of resnet50: no file is named" in capsys.readouterr().out


def sentence(capsys):
    printed = capsys.readouterr()
    assert printed.out == "" or printed.out.count("\n") == 1
    assert printed.err.count("\n") == 1
    return printed.err


def test_a_users_mistake_is_one_sentence_and_a_failure(store, recipe, tmp_path, capsys):
    assert main(command(tmp_path / "nowhere", recipe)) == 1
    assert "nowhere/experiments/small/tables/pretraining_pool.parquet does not exist yet" in sentence(capsys)
    assert not (tmp_path / "nowhere").exists()
    assert main(command(store, "unheard_of")) == 1
    assert "No recipe 'unheard_of'" in sentence(capsys)
    larger = tmp_path / "larger.yaml"
    larger.write_text(RECIPE.replace("height: 32", "height: 64"), encoding="utf-8")
    assert main(command(store, larger)) == 1
    assert "other settings (images) than the recipe small has now" in sentence(capsys)
    (cache,) = (store / "images").iterdir()
    description = (cache / "cache.json").rename(tmp_path / "cache.json")
    assert main(command(store, recipe)) == 1
    assert "of the image cache is missing: run the job `ingest` again" in sentence(capsys)
    description.rename(cache / "cache.json")
    many = tmp_path / "many.yaml"
    many.write_text(RECIPE.replace("batch_size: 4", "batch_size: 7"), encoding="utf-8")
    assert main(command(store, many, "--method", "ce")) == 1
    assert "pretraining.batch_size is 7, but the pool has 6 training images" in sentence(capsys)
    assert main(command(store, recipe, "--method", "no_method")) == 1
    refusal = sentence(capsys)
    assert "--method no_method" in refusal
    assert {"baseline", "imagenet", "dcm", "ce", "ce_dcm"} <= set(re.findall(r"\w+", refusal))
    assert main(command(store, recipe, "--seed", "7")) == 1
    assert "--seed 7 is none of pretraining.seeds: 0." in sentence(capsys)
    sources = tmp_path / "sources.yaml"
    sources.write_text(VARIANTS, encoding="utf-8")
    assert main(command(store, sources, "--method", "by_source")) == 1
    assert "scan.parquet does not exist: only a store that has read the archive" in sentence(capsys)


@pytest.mark.usefixtures("tiny_backbone")
def test_variants_and_seeds_are_trained_separately_and_each_can_be_named(store, tmp_path, capsys):
    recipe = tmp_path / "variants.yaml"
    recipe.write_text(VARIANTS, encoding="utf-8")
    assert main(command(store, recipe, "--method", "shuffled")) == 0
    encoders = store / "experiments" / "small" / "encoders"
    folders = [encoders / f"resnet50_shuffled_seed-{seed}" for seed in (3, 8)]
    assert sorted(encoders.iterdir()) == folders
    printed = capsys.readouterr().out
    assert "resnet50 shuffled, seed 3: epoch 1 of 2" in printed
    assert f"resnet50 shuffled, seed 8: ran, in {folders[1]}" in printed
    weights = [(folder / "encoder.safetensors").read_bytes() for folder in folders]
    assert weights[0] != weights[1]
    assert main(command(store, recipe, "--method", "ce_dcm", "--seed", "8")) == 0
    assert {path.name for path in encoders.iterdir()} == {
        *("resnet50_shuffled_seed-3", "resnet50_shuffled_seed-8", "resnet50_ce_dcm_seed-8"),
    }
    assert (encoders / "resnet50_ce_dcm_seed-8" / "encoder.safetensors").read_bytes() != weights[1], "other labels"


@pytest.mark.parametrize(
    ("changed", "to", "section"),
    [
        ("[liver, kidney]", "[liver]", "labels"),
        ("[liver, kidney]", "[kidney, liver]", "labels"),
        ("labels: {", "labels: {missing: mask, ", "labels"),
        ("width: 32", "width: 64", "images"),
        ("images:", "archive: {frames_per_cine: 3}\nimages:", "archive"),
        ("images:", "archive: {b_mode_only: false}\nimages:", "archive"),
        ("images:", "cohort: {validation_share: 0.5}\nimages:", "cohort"),
    ],
)
def test_a_pool_made_with_other_settings_is_refused(store, tmp_path, capsys, changed, to, section):
    other = tmp_path / "other.yaml"
    other.write_text(RECIPE.replace(changed, to), encoding="utf-8")
    with pytest.raises(UserError) as refusal:
        load_pool(Store(store), load_recipe(str(other)))
    assert all(said in str(refusal.value) for said in (f"({section})", "recipe small", "`ingest`"))
    assert main(command(store, other, "--preflight")) == 1
    assert sentence(capsys).strip() == str(refusal.value)
    assert not list(store.rglob("encoders"))


@pytest.mark.parametrize(
    ("changed", "to"),
    [
        ("epochs: 2", "epochs: 9"),
        ("images:", "archive: {description_patients: 1}\nimages:"),
        ("labels: {", "labels: {largest_unmapped_share: 0.9, "),
    ],
)
def test_settings_that_affect_no_row_keep_the_pool_valid(store, tmp_path, changed, to):
    other = tmp_path / "other.yaml"
    other.write_text(RECIPE.replace(changed, to), encoding="utf-8")
    assert load_pool(Store(store), load_recipe(str(other))).images.count == COUNT


def test_a_recipe_of_another_name_has_no_pool_yet_even_if_another_recipe_has_one(store, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(RECIPE.replace("name: small", "name: another"), encoding="utf-8")
    with pytest.raises(UserError, match=r"experiments/another/tables/pretraining_pool\.parquet does not exist"):
        load_pool(Store(store), load_recipe(str(other)))


def test_a_pool_without_a_digest_of_its_settings_is_refused(store, recipe):
    path = store / "experiments/small/tables/pretraining_pool.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)  # as an earlier version wrote it
    with pytest.raises(UserError, match="run the job `ingest` again"):
        load_pool(Store(store), load_recipe(str(recipe)))


@pytest.mark.slow
def test_under_torchrun_several_processes_make_one_encoder_and_the_first_one_prints(store, recipe):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    asked = ["-m", "pipeline.pretraining", *command(store, recipe, "--method", "ce_dcm")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *asked], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2 of 2") == done.stdout.count("ce_dcm: ran, in ") == 1
    (folder,) = (store / "experiments" / "small" / "encoders").iterdir()
    assert (folder / "encoder.onnx").is_file()


def test_it_needs_neither_dicom_nor_an_orchestrator(store, recipe):
    """A real ResNet-50, in a process that cannot import any other layer or package."""
    absent = ("dagster", "mlflow", "pydicom", "scipy", "sklearn", "matplotlib", "onnxscript", "onnx")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({absent})); import torch; torch.set_num_threads(1);"
        "from pipeline.pretraining.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    asked = command(store, recipe, "--method", "ce_dcm")
    done = subprocess.run(
        [sys.executable, "-c", program, *asked], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "resnet50 ce_dcm: ran, in " in done.stdout
    assert "no encoder.onnx, since onnxscript is not installed" in done.stdout
    (folder,) = (store / "experiments" / "small" / "encoders").iterdir()
    assert {path.name for path in folder.iterdir()} >= {"encoder.safetensors", "model_card.md", "outcome.json"}
    assert "There is no `encoder.onnx`" in (folder / "model_card.md").read_text(encoding="utf-8")
