"""Encoder folders of version 3 of the pretraining code, written before methods were registered, are not trained again.

`folders/` was written by the code of commit be5139a: the tiny backbone, `make_pool()` and the `settings` fixture. The
decoders (6 MB each) and ONNX graphs are left out.
"""

import shutil
from pathlib import Path

import pytest

from pipeline.methods import METHODS
from pipeline.pretraining.encoder_folder import Preprocessing, read_curves
from pipeline.pretraining.metadata_classifier import metadata_logits
from pipeline.pretraining.pretrain import fingerprint_of, pretrain
from pipeline.training.outcome import Outcome
from tests.pipeline.pretraining.conftest import AllSettings, settings_of

FOLDERS = Path(__file__).parent / "folders"
CHANGES = {
    "defaults": {"epochs": 200, "batch_size": 32, "learning_rate": 1e-4, "discriminator_learning_rate": 1e-5},
    "without batch norm": {"discriminator_batch_norm": False},
    "seed": {"seed": 4},
    "quiet": {"precision": "bfloat16", "lambda_adv": 0.0},
    "weights": {"imagenet_weights": {"resnet50": "/nowhere"}},
}
FINGERPRINTS = {
    ("baseline", "defaults"): "4bb2ba0de320e992184fb4d394e371629363dcc82a42e802d8df190b911e4efb",
    ("baseline", "without batch norm"): "4bb2ba0de320e992184fb4d394e371629363dcc82a42e802d8df190b911e4efb",
    ("baseline", "seed"): "326bcd8669a5038ff10c2f4e0a7c4880947d8ebf58f214c92295e224a96855af",
    ("baseline", "quiet"): "4bb2ba0de320e992184fb4d394e371629363dcc82a42e802d8df190b911e4efb",
    ("baseline", "weights"): "4bb2ba0de320e992184fb4d394e371629363dcc82a42e802d8df190b911e4efb",
    ("imagenet", "defaults"): "8a4e7241f2a6fc3f91697e2acdb9396758bef3becf54a0a6ee0f3c4591e1c768",
    ("imagenet", "without batch norm"): "8a4e7241f2a6fc3f91697e2acdb9396758bef3becf54a0a6ee0f3c4591e1c768",
    ("imagenet", "seed"): "8a4e7241f2a6fc3f91697e2acdb9396758bef3becf54a0a6ee0f3c4591e1c768",
    ("imagenet", "quiet"): "8a4e7241f2a6fc3f91697e2acdb9396758bef3becf54a0a6ee0f3c4591e1c768",
    ("imagenet", "weights"): "f3d5c1cad6ddb18c3ef47a82df9493bffd038750459b949b4da8c84ff350f369",
    ("dcm", "defaults"): "8a796c0bb5f633aa49ceef1df55aa7852f2c9ebffd2c745b5e53e39146cfcf13",
    ("dcm", "without batch norm"): "9f94728fe91b2ca11d204ff80a02ae30252401e0600117e98bb14d030e1e2969",
    ("dcm", "seed"): "31f1b8eb821d1c83c0cb720ea2e7d5a65c01d4b1d64af84a79e4709d68bbad7a",
    ("dcm", "quiet"): "de97e4c20911a2a7819c2b503b128f788c56f88396c3d0de9fd1ab99d12de057",
    ("dcm", "weights"): "9f94728fe91b2ca11d204ff80a02ae30252401e0600117e98bb14d030e1e2969",
    ("ce", "defaults"): "7a8e4da74da38a6f8f53369e80b59e0dced09d70d9dc66fe7f8cf402dc8d12b2",
    ("ce", "without batch norm"): "464d08dfed1484c4affff6fc68acf70021a1693adaeb09034ba7cd5ccb79496a",
    ("ce", "seed"): "e4403554726957cb5191a96516dad62a7ce28b8345e8c460a149c44fd931c51e",
    ("ce", "quiet"): "38173513df05558388dff7252c18e4e48155077d0dcdf9ade17d1481c2f236e4",
    ("ce", "weights"): "ecd44f4e6a37de2f321e901b15dd01219368a95bf300e7ae6b7174fb1e80c534",
    ("ce_dcm", "defaults"): "ffd9e1b10293a6ae031521b5f9a30c9030083aa03a1069d631cbba6a976bced3",
    ("ce_dcm", "without batch norm"): "b348240d61973bc705dbc581f6f564e42b5759729cc14a64191c4bec3f48d72c",
    ("ce_dcm", "seed"): "a858203be74d19521df8a3702c40e953b57dac0e9ba7f9fcea02be79467b7a6c",
    ("ce_dcm", "quiet"): "612f7dfbde1986b032f4edff6089076fbf1dc206475c5de9f4ba1dc12cf7a8e6",
    ("ce_dcm", "weights"): "7f1cd7b15ce71c3ab90e34fa59706511a29f9f61d59d4d0e03c7ea52c3261104",
}
"""By method and change of settings; computed by be5139a."""


@pytest.mark.usefixtures("tiny_backbone")
@pytest.mark.parametrize("method", ["baseline", "imagenet", "dcm", "ce", "ce_dcm"])
def test_a_finished_folder_is_left_unchanged(tmp_path, pool, settings, method):
    folder = shutil.copytree(FOLDERS / method, tmp_path / method)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    lines, epochs = [], []
    own = settings_of(method, settings)
    outcome = pretrain("resnet50", method, pool, own, folder, lines.append, lambda epoch, _: epochs.append(epoch))
    assert outcome == Outcome.read(FOLDERS / method)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert lines == [f"resnet50 {method}: nothing has changed, {outcome.status} before"]
    assert epochs == ([1, 2, 3] if METHODS[method].trains else [])


@pytest.mark.usefixtures("tiny_backbone")
def test_files_of_an_earlier_version_are_read(pool):
    assert metadata_logits(FOLDERS / "dcm", pool).shape == (4, 3)
    assert Preprocessing.read(FOLDERS / "ce").height == 32
    assert len(read_curves(FOLDERS / "ce_dcm")["train_adversarial_share"]) == 3


@pytest.mark.parametrize(("method", "change"), FINGERPRINTS)
def test_fingerprints_are_those_of_the_earlier_version(pool, settings, method, change):
    changed = AllSettings(**{**dict(settings), **CHANGES[change]})
    assert fingerprint_of("resnet50", method, pool, settings_of(method, changed)) == FINGERPRINTS[method, change]
