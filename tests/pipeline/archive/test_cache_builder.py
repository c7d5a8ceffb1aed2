"""Records to the image cache: the ledger of frames, bytes that repeat, early exit, privacy."""

import os
import shutil
from hashlib import sha256

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from pipeline.archive import cache_builder as images_module
from pipeline.archive.cache_builder import build_cache
from pipeline.archive.workers import Failed
from pipeline.cohort.patient_links import linked_patients
from pipeline.dicom.rejections import Reason, Rejection
from pipeline.errors import UserError
from pipeline.images.cache import cache_folder, load_pixels
from pipeline.privacy.identity import load_key
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from pipeline.tables import IMAGES, REJECTED_FRAMES
from tests.pipeline.archive.synthetic import KEY, index_folder, noise, write_dicom

SIZE = Images(height=32, width=64)
SENTINELS = ("SENTINEL^NAME", "SENTINELID77", "SENTINEL CLINIC", "SENTINELFOLDER")


def build(folder, settings=Archive(), key=KEY):  # noqa: B008 - frozen
    index = index_folder(folder / "archive", folder / "private", key)
    return index, build_cache(
        index.records, str(folder / "archive"), folder / "private", key, folder / "images", SIZE, settings
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def clinic(tmp_path):
    """An archive with stills, a cine and a file whose pixels are no JPEG."""
    archive = tmp_path / "archive"
    for number in range(6):
        identity = {"PatientID": f"SENTINELID77-{number % 3}", "PatientName": "SENTINEL^NAME"}
        place = archive / "SENTINELFOLDER" / f"{number}"
        write_dicom(place, noise(64, 96, seed=number), InstitutionName="SENTINEL CLINIC", **identity)
    write_dicom(archive / "cine", np.stack([noise(64, 96, seed=50 + n) for n in range(9)]), PatientID="SENTINELID77-0")
    broken = encapsulate([bytes(range(256)) * 4])
    write_dicom(archive / "broken", PixelData=broken, TransferSyntaxUID=JPEGBaseline8Bit, PatientID="SENTINELID77-1")
    return tmp_path


def test_every_selected_frame_is_an_image_or_a_rejection(clinic):
    index, cache = build(clinic, Archive(frames_per_cine=3))
    assert index.records.num_rows == 8
    assert (cache.frames, cache.images.num_rows, cache.rejected.num_rows) == (6 + 3 + 1, 9, 1)
    assert cache.images.schema.equals(IMAGES.schema) and cache.rejected.schema.equals(REJECTED_FRAMES.schema)
    assert cache.rejected["reason"].to_pylist() == ["undecodable"]
    file, _, frame = cache.rejected["id"][0].as_py().partition(":")
    assert file in index.records["file_id"].to_pylist() and frame == "0"
    cine = index.records.filter(np.array(index.records["frames"].to_pylist()) == 9)["sop_instance"][0].as_py()
    frames = [row["frame"] for row in cache.images.to_pylist() if row["sop_instance"] == cine]
    assert frames == [1, 4, 7]


def test_images_are_at_the_positions_of_their_rows_and_belong_to_their_patients(clinic):
    index, cache = build(clinic)
    pixels = load_pixels(cache.folder, cache.images)
    assert pixels.shape == (7, 32, 64)
    assert [sha256(grey.tobytes()).hexdigest() for grey in pixels] == cache.images["image_digest"].to_pylist()
    patients = dict(zip(index.records["sop_instance"].to_pylist(), index.records["patient"].to_pylist(), strict=True))
    assert all(patients[row["sop_instance"]] == row["patient"] for row in cache.images.to_pylist())


def test_the_same_archive_twice_gives_the_same_bytes(clinic, tmp_path):
    _, first = build(clinic)
    before = contents(first.folder)
    shutil.rmtree(clinic / "private" / "cache")
    _, second = build(clinic)
    assert contents(second.folder) == before and second.folder == first.folder


def test_nothing_is_decoded_if_nothing_changed(clinic, monkeypatch):
    _, first = build(clinic)
    before = {path: path.stat().st_mtime_ns for path in first.folder.glob("part-*")}
    monkeypatch.setattr(images_module, "write_shard", None)
    _, second = build(clinic)
    assert {path: path.stat().st_mtime_ns for path in second.folder.glob("part-*")} == before
    assert second.decoded == 0
    assert second.images.equals(first.images) and second.rejected.equals(first.rejected)


def test_a_replaced_file_is_decoded_again(clinic):
    _, first = build(clinic)
    cine = np.stack([noise(64, 96, seed=90 + n) for n in range(9)])
    write_dicom(clinic / "archive" / "cine", cine, PatientID="SENTINELID77-0")
    _, second = build(clinic)
    assert len(set(first.images["image_digest"].to_pylist()) ^ set(second.images["image_digest"].to_pylist())) == 2


def test_settings_have_folders_of_their_own():
    folders = {cache_folder(images_module.Path("x"), size, settings) for size in (SIZE, Images(height=64, width=64))
               for settings in (Archive(), Archive(frames_per_cine=2), Archive(modalities=("CT",)))}  # fmt: skip
    assert len(folders) == 6 and all(folder.name.startswith(("32x64-", "64x64-")) for folder in folders)


def test_leftovers_of_a_killed_run_are_removed(clinic):
    folder = cache_folder(clinic / "images", SIZE, Archive())
    folder.mkdir(parents=True)
    (folder / ".part-00.parquet.0badf00d.tmp").write_bytes(b"half")
    build(clinic)
    assert not list(folder.glob(".*.tmp"))


def test_a_decoder_that_dies_costs_that_file_s_frames(clinic, monkeypatch):
    real = images_module.each_in_worker
    deaths = iter([Failed(Rejection(Reason.CRASHED, "the reading process died"))])
    monkeypatch.setattr(
        images_module, "each_in_worker", lambda w, jobs, *how: [next(deaths, None) or r for r in real(w, jobs, *how)]
    )
    _, cache = build(clinic)
    assert cache.frames == 8 == cache.images.num_rows + cache.rejected.num_rows
    assert "crashed" in cache.rejected["reason"].to_pylist()


def test_a_file_that_vanished_costs_its_frames(clinic):
    index, _ = build(clinic)
    (clinic / "archive" / "cine").unlink()
    arguments = (
        str(clinic / "archive"),
        clinic / "private",
        KEY,
        clinic / "images",
        Images(height=64, width=64),
        Archive(),
    )
    cache = build_cache(index.records, *arguments)
    assert cache.frames == 8 and "the file vanished" in cache.rejected["detail"].to_pylist()


def test_an_index_of_another_scan_raises_a_user_error(clinic):
    index, _ = build(clinic)
    (clinic / "archive" / "cine").unlink()
    index_folder(clinic / "archive", clinic / "private")
    with pytest.raises(UserError, match=r"dicom_index.*`ingest`"):
        build_cache(index.records, str(clinic / "archive"), clinic / "private", KEY, clinic / "images", SIZE, Archive())


def test_identifiers_stay_in_the_private_folder(clinic, capfd):
    key = load_key(clinic / "private", {})
    index, cache = build(clinic, Archive(frames_per_cine=3), key)
    for name, table in (("index", index.records), ("rejected", index.rejected), ("images", cache.images)):
        pq.write_table(table, clinic / "images" / name, compression="none", use_dictionary=False)
    out, err = capfd.readouterr()
    public = {"out": out.encode(), "err": err.encode()} | contents(clinic / "images")
    words = [word.encode() for word in SENTINELS]
    assert [(name, word) for name, data in public.items() for word in words if word in data] == []
    rows = str(
        [index.records.to_pylist(), index.rejected.to_pylist(), cache.images.to_pylist(), cache.rejected.to_pylist()]
    )
    assert not any(word in rows for word in SENTINELS)
    assert key not in b"".join(public.values())
    assert os.fsencode("SENTINELFOLDER") in b"".join(
        os.fsencode(path) for path in pq.read_table(clinic / "private" / "scan.parquet")["path"].to_pylist()
    )


def specks(pixels: int) -> np.ndarray:
    """A black frame of 64 x 96 with so many white pixels."""
    frame = np.zeros(64 * 96, np.uint8)
    frame[:: len(frame) // pixels][:pixels] = 255
    return frame.reshape(64, 96)


BLANK = {
    "black": np.zeros((64, 96), np.uint8),
    "white": np.full((64, 96), 255, np.uint8),
    "grey": np.full((64, 96), 77, np.uint8),
    "colour": np.full((64, 96, 3), 77, np.uint8),
    "noise": np.random.default_rng(0).integers(0, 9, (64, 96), np.uint8),
    "specks": specks(30),  # 0.49 % of 6144 pixels
}
SHOWN = {"more specks": specks(400), "dim": np.random.default_rng(0).integers(0, 24, (64, 96), np.uint8)}


def test_frames_of_one_grey_level_are_rejected_and_link_no_patients(tmp_path):
    for patient in "ABC":
        study = {"PatientID": patient, "StudyInstanceUID": f"1.{ord(patient)}"}
        for name, frame in (BLANK | {n: np.roll(f, ord(patient)) for n, f in SHOWN.items()}).items():
            write_dicom(tmp_path / "archive" / patient / name, frame, **study)
    _, cache = build(tmp_path)
    assert cache.rejected["reason"].to_pylist() == ["no_tissue"] * (3 * len(BLANK))
    assert cache.images.num_rows == 3 * len(SHOWN)
    assert linked_patients(cache.images) == []


def test_a_blank_frame_of_a_cine_costs_that_frame(tmp_path):
    frames = np.stack([noise(64, 96, seed=n) for n in range(6)])
    frames[3] = 0
    write_dicom(tmp_path / "archive" / "cine", frames)
    _, cache = build(tmp_path, Archive(frames_per_cine=6))
    assert cache.images["frame"].to_pylist() == [0, 1, 2, 4, 5]
    assert [identifier.rpartition(":")[2] for identifier in cache.rejected["id"].to_pylist()] == ["3"]
