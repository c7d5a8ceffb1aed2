"""Scores of DCM on the phantom's held-out images, by tags and by truth."""

import csv
import hashlib
import hmac
import shutil

import pyarrow as pa
import pytest
import torch

from pipeline.errors import UserError
from pipeline.images.loader import ResidentLoader
from pipeline.phantom import compare as compare_module
from pipeline.phantom.compare import compare, main, markdown
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.privacy.identity import PUBLIC_DEMO_KEY
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import pretraining_pool_table

RECIPE = Recipe(name="here", pretraining={"methods": ["dcm"]}, downstream={"arms": ["dcm"]})
NAMES = RECIPE.labels.names


def tags_of(row):
    """A record's labels by its tags: 1, 0, None."""
    groups, probe = row["tag_groups"].split(","), row["tag_probe"]
    known = {name: int(name in groups) for name in NAMES[:-2]} if groups != [""] else {}
    return dict.fromkeys(NAMES) | known | ({name: int(name == probe) for name in NAMES[-2:]} if probe else {})


def truth_of(row):
    return [int(name in {*row["true_groups"].split(","), row["true_probe"]}) for name in NAMES]


@pytest.fixture
def records(small_phantom):
    with open(small_phantom / "ground_truth" / "records.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def store(small_phantom, records, tmp_path, monkeypatch):
    """A store whose pool is all of the small phantom, the second half of it for validation."""
    shutil.copytree(small_phantom, tmp_path / "phantom")
    half = len(records) // 2
    rows = [
        {
            **dict.fromkeys(("patient", "shard", "image_digest", "source_digest"), ""),
            "sop_instance": hmac.new(
                PUBLIC_DEMO_KEY, f"sop_instance\0{row['sop_instance_uid']}".encode(), hashlib.sha256
            ).hexdigest()[:32],
            "frame": 0,
            "position": 0,
            "split": "train" if number < half else "val",
            **tags_of(row),
        }
        for number, row in enumerate(records)
    ]
    table = pretraining_pool_table(NAMES)
    tables = Store(tmp_path).experiment(RECIPE.name).tables
    table.write(tables, pa.Table.from_pylist(rows, table.schema), RECIPE)
    labels = [[row[name] for name in NAMES] for row in rows]
    order = torch.arange(len(rows))
    pool = PretrainingSet(
        images=ResidentLoader(torch.zeros(len(rows), 32, 32, dtype=torch.uint8)),
        labels_NL=torch.tensor([[float(value or 0) for value in row] for row in labels]),
        known_NL=torch.tensor([[value is not None for value in row] for row in labels]),
        patients_N=order,
        files_N=order,
        train=order[:half],
        val=order[half:],
        label_names=NAMES,
        image_digest="",
        label_digest="",
    )
    monkeypatch.setattr(compare_module, "load_pool", lambda store, recipe: pool)
    return Store(tmp_path)


def says(monkeypatch, logits):
    monkeypatch.setattr(compare_module, "metadata_logits", lambda folder, pool: torch.tensor(logits))


def test_an_encoder_that_predicts_the_truth_scores_one_by_the_truth_and_as_the_tags_do_by_the_tags(
    store, records, monkeypatch
):
    held_out = records[len(records) // 2 :]
    says(monkeypatch, [[2.0 * value - 1 for value in truth_of(row)] for row in held_out])
    by_tags, by_truth, agreement = compare(store, RECIPE, "resnet50")
    for place, name in enumerate(NAMES):
        tags = [tags_of(row)[name] for row in held_out]
        truth = [truth_of(row)[place] for row in held_out]
        pairs = [(tag, true) for tag, true in zip(tags, truth, strict=True) if tag is not None]
        right = sum(tag == true for tag, true in pairs) / len(pairs)
        assert (by_truth[place]["label"], by_truth[place]["accuracy"]) == (name, 1.0)
        assert by_truth[place]["images"] == len(held_out)
        assert by_tags[place]["images"] == len(pairs) < len(held_out)
        assert by_tags[place]["accuracy"] == agreement[place]["accuracy"] == pytest.approx(right)
    assert min(row["accuracy"] for row in agreement) < 1  # some tags of this clinic are wrong
    assert [row["accuracy"] for row in agreement[-2:]] == [1, 1]  # but none of a probe, if one is named


def test_the_table_has_a_row_per_label_and_a_dash_for_undefined_scores(store, records, monkeypatch):
    says(monkeypatch, [[0.0] * len(NAMES)] * (len(records) - len(records) // 2))
    lines = markdown(*compare(store, RECIPE, "resnet50")).splitlines()
    assert len(lines) == 2 + len(NAMES)
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| liver | ")
    absent = [line for line in lines if "| 0.00 |" in line]
    assert all("–" in line for line in absent)


def test_a_store_without_a_phantom_is_refused(store, records, monkeypatch, capsys, tmp_path):
    says(monkeypatch, [[0.0] * len(NAMES)] * (len(records) - len(records) // 2))
    shutil.rmtree(store.phantom)
    monkeypatch.setenv("SONOTAG_PSEUDONYM_KEY", "a key for tests only")
    with pytest.raises(UserError, match=r"records\.csv "):
        compare(store, RECIPE, "resnet50")


def test_images_of_another_archive_are_refused(store, records, monkeypatch):
    says(monkeypatch, [[0.0] * len(NAMES)] * (len(records) - len(records) // 2))
    monkeypatch.setenv("SONOTAG_PSEUDONYM_KEY", "a key for tests only")
    with pytest.raises(UserError, match=r"^\d+ validation images "):
        compare(store, RECIPE, "resnet50")


def test_the_command_names_the_missing_store(tmp_path, capsys):
    assert main(["--store", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert str(tmp_path) in told.err
