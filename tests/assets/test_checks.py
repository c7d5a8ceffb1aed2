"""What keeps a test set apart from the pretraining pool, and what the jobs cover."""

from pathlib import Path

import pyarrow as pa
import pytest

from assets.definitions import build_defs
from pipeline.cohort.leaks import Leak
from pipeline.tasks.pool_overlap import count_shared
from resources.environment import read_environment

POOL = pa.table({"patient": ["a", "b"], "source_digest": ["1", "2"]})


@pytest.mark.parametrize(
    ("patient", "source_digest", "split", "shared"),
    [
        ("c", "3", "test", 0),
        ("a", "3", "test", 1),
        ("c", "2", "test", 1),
        ("a", "2", "train", 0),
    ],
)
def test_a_test_image_shares_neither_patient_nor_pixels(
    patient: str, source_digest: str, split: str, shared: int
) -> None:
    task = pa.table({"patient": [patient], "source_digest": [source_digest], "split": [split]})
    assert count_shared(POOL, task, []) == shared
    assert count_shared(POOL, task, [], {"c"}) == (split == "test")
    near = [Leak(pair="p", similarity=0.9, first="", second="", row=0, other_row=0)]
    assert count_shared(POOL, task, near) == (split == "test")


def test_the_jobs_cover_the_graph_without_overlap(tmp_path: Path) -> None:
    definitions = build_defs(read_environment({"SONOTAG_STORE": str(tmp_path), "SONOTAG_RECIPE": "paper"}))
    layers = {
        name: set(definitions.resolve_job_def(name).asset_layer.executable_asset_keys)
        for name in ("ingest", "pretrain", "evaluate", "finetune", "report", "demo", "predict", "audit")
    }
    scores = layers["evaluate"] - layers["finetune"]
    parts = [scores, *(layers[name] for name in ("ingest", "pretrain", "finetune", "report"))]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(layers["demo"])
    names = {key.path[-1] for key in layers["pretrain"]}
    methods = ("baseline", "imagenet", "dcm", "ce", "ce_dcm")
    encoders = {f"{backbone}_{method}_encoder" for backbone in ("vgg16_bn", "resnet50") for method in methods}
    assert names == encoders | {"preflight"}
    assert len(layers["finetune"]) == 3 + 2 * 7 * 3 + 3  # images, arms, champions
    shared = layers["evaluate"] & layers["finetune"]  # so that encoders are scored before anything is fine-tuned
    assert {key.path[-1] for key in shared} == {"quality_images", "liver_kidney_images", "thyroid_images"}
    assert {key.path[-1] for key in layers["evaluate"] - shared} == {"frozen_scores", "embeddings"}
    assert {key.path[-1] for key in layers["predict"]} == {"new_predictions"}
    assert not layers["predict"] & layers["demo"]  # it asks what to predict
    assert {key.path[-1] for key in layers["audit"]} == {"doubtful_labels"} and not layers["audit"] & layers["demo"]
    for name in layers:
        assert definitions.resolve_job_def(name).run_config_schema  # else the job cannot be run, nor shown


def test_the_page_waits_for_every_other_report(tmp_path: Path) -> None:
    definitions = build_defs(read_environment({"SONOTAG_STORE": str(tmp_path), "SONOTAG_RECIPE": "paper"}))
    graph = definitions.resolve_asset_graph()
    page = next(key for key in graph.get_all_asset_keys() if key.path[-1] == "html_report")
    others = {key for key in graph.get_all_asset_keys() if graph.get(key).group_name == "reports"} - {page}
    assert graph.get(page).parent_keys == others
    assert {key.path[-1] for key in others} >= {"results_table", "confusion_matrices", "segmentation_overlays"}


def test_the_last_part_of_every_key_tells_two_nodes_apart(tmp_path: Path) -> None:
    definitions = build_defs(read_environment({"SONOTAG_STORE": str(tmp_path)}))
    keys = [key for asset in definitions.assets for key in asset.keys]
    assert len({key.path[-1] for key in keys}) == len(keys)
