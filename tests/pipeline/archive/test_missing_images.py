"""Sites that are gone at once: the index stops until a person confirms it, and patients keep their side."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.archive.__main__ import main
from pipeline.archive.arrivals import ScanHistory, arrivals, decide
from pipeline.archive.erase import erase_patient
from pipeline.archive.missing_images import Loss
from pipeline.cohort.splits import known_sides, read_draws, save_sides, sides_of, split_patients
from pipeline.errors import UserError
from pipeline.privacy.identity import pseudonym, with_issuer
from pipeline.recipe.automation import Automation
from pipeline.store import Store
from pipeline.tables import DELETED_FILES, DICOM_INDEX, PATIENT_SPLITS, REJECTED_FILES
from tests.conftest import plain_bytes
from tests.pipeline.archive.synthetic import KEY, index_folder, write_dicom
from tests.pipeline.archive.zipped import zip_of


def sites(folder: Path, sizes: dict[str, int], images: int = 2) -> Path:
    """An archive with a folder per site, of so many patients with `images` each."""
    for site, patients in sizes.items():
        for patient in range(patients):
            for number in range(images):
                path = folder / "archive" / site / f"p{patient}" / f"{number}.dcm"
                study = f"1.2.{ord(site)}.{patient}"
                write_dicom(path, PatientID=f"{site}{patient}", StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1")
    return folder / "archive"


def index(folder: Path):
    """The index, written as `ingest` writes it, and the split that follows."""
    store = Store(folder / "store").open()
    made = index_folder(folder / "archive", store.private)
    for table, rows in ((DICOM_INDEX, made.records), (REJECTED_FILES, made.rejected), (DELETED_FILES, made.deleted)):
        table.write(store.tables, rows)
    patients = set(made.records["patient"].to_pylist())
    save_sides(store, split_patients(read_draws(store.private, patients), known_sides(store), 0.3))
    return made


def sides(folder: Path) -> dict[str, str]:
    return sides_of(PATIENT_SPLITS.read(folder / "store" / "tables"))


def unmount(folder: Path, site: str) -> None:
    """The share is not mounted: an empty folder in its place."""
    (folder / "archive" / site).rename(folder / f"{site} elsewhere")
    (folder / "archive" / site).mkdir()


def mount(folder: Path, site: str) -> None:
    (folder / "archive" / site).rmdir()
    (folder / f"{site} elsewhere").rename(folder / "archive" / site)


def confirm(folder: Path, monkeypatch) -> int:
    monkeypatch.setenv("SONOTAG_STORE", str(folder / "store"))
    return main(["gone"])


@pytest.mark.parametrize(
    ("loss", "large"),
    [
        (Loss(7, 20, 0, 20, 0), True),  # more than a third of the images, although no patient is gone
        (Loss(7, 21, 0, 20, 0), False),
        (Loss(5, 100, 4, 11, 0), True),  # more than a third of the patients
        (Loss(5, 100, 4, 12, 0), False),
        (Loss(5, 100, 2, 3, 0), False),  # of too few
        (Loss(5, 100, 0, 9, 1), True),  # a folder of several patients
        (Loss(4, 5, 4, 5, 1), False),  # too few images
    ],
)
def test_a_loss_is_large_from_five_images_on_by_images_patients_or_folders(loss, large):
    assert loss.is_large == large


@pytest.mark.parametrize(
    ("sizes", "gone", "counts"),
    [
        ({"a": 5, "b": 5}, "a", "10 of 20 known images and 5 of 10 patients"),
        ({"a": 3, "b": 20}, "a", "6 of 46 known images and 3 of 23 patients"),
        ({"a": 39, "b": 3}, "a", "78 of 84 known images and 39 of 42 patients"),
    ],
)
def test_an_unmounted_site_stops_the_index_and_nothing_is_changed(tmp_path, sizes, gone, counts):
    sites(tmp_path, sizes)
    index(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.parquet")}
    unmount(tmp_path, gone)
    for _ in range(2):
        with pytest.raises(UserError) as raised:
            index(tmp_path)
        assert counts in str(raised.value) and "`python -m pipeline.archive gone`" in str(raised.value)
        assert str(tmp_path / "archive" / gone) not in str(raised.value)
    assert {path: path.read_bytes() for path in before} == before
    mount(tmp_path, gone)
    assert index(tmp_path).read == 0


def test_a_confirmed_loss_goes_through_once_and_patients_that_come_back_keep_their_side(tmp_path, monkeypatch):
    sites(tmp_path, {"a": 10})
    index(tmp_path)
    sites(tmp_path, {"b": 10})
    index(tmp_path)
    before = sides(tmp_path)
    assert set(before.values()) == {"train", "val"}
    for _ in range(2):  # the second loss has to be confirmed again
        unmount(tmp_path, "b")
        with pytest.raises(UserError, match="20 of 40 known images"):
            index(tmp_path)
        assert confirm(tmp_path, monkeypatch) == 0
        made = index(tmp_path)
        assert (made.records.num_rows, made.deleted.num_rows, len(sides(tmp_path))) == (20, 20, 10)
        assert index(tmp_path).records.num_rows == 20
        mount(tmp_path, "b")
        assert index(tmp_path).records.num_rows == 40
        assert sides(tmp_path) == before


def test_confirming_without_a_stopped_run_raises_a_user_error(tmp_path, monkeypatch, capsys):
    sites(tmp_path, {"a": 5})
    index(tmp_path)
    assert confirm(tmp_path, monkeypatch) == 1
    assert "nothing to confirm" in capsys.readouterr().err


def test_a_confirmation_covers_the_images_that_were_counted_and_no_more(tmp_path, monkeypatch):
    sites(tmp_path, {"a": 4, "b": 4, "c": 4})
    index(tmp_path)
    unmount(tmp_path, "a")
    with pytest.raises(UserError, match="8 of 24"):
        index(tmp_path)
    confirm(tmp_path, monkeypatch)
    unmount(tmp_path, "b")
    with pytest.raises(UserError, match="8 of 24"):
        index(tmp_path)


@pytest.mark.parametrize(
    "delete",
    [
        lambda archive: [(archive / "a" / f"p{patient}" / "0.dcm").unlink() for patient in range(4)],
        lambda archive: shutil.rmtree(archive / "a" / "p1"),
        lambda archive: [shutil.rmtree(archive / "a" / f"p{patient}") for patient in (1, 2, 4)],
    ],
    ids=["a few files", "a patient", "three patients of twelve"],
)
def test_ordinary_deletions_go_on(tmp_path, delete):
    sites(tmp_path, {"a": 12})
    index(tmp_path)
    delete(tmp_path / "archive")
    made = index(tmp_path)
    assert made.deleted.num_rows > 0 and made.records.num_rows == 24 - made.deleted.num_rows


def test_a_folder_that_was_renamed_or_zipped_is_no_loss(tmp_path):
    sites(tmp_path, {"a": 6, "b": 2})
    index(tmp_path)
    (tmp_path / "archive" / "a").rename(tmp_path / "archive" / "z")
    assert index(tmp_path).records.num_rows == 16
    files = [(str(path), path.read_bytes()) for path in (tmp_path / "archive" / "z").rglob("*.dcm")]
    (tmp_path / "archive" / "z.zip").write_bytes(zip_of(files))
    shutil.rmtree(tmp_path / "archive" / "z")
    assert index(tmp_path).records.num_rows == 16


def test_the_sensor_requests_no_run_while_a_site_is_away(tmp_path):
    archive, private = sites(tmp_path, {"a": 5, "b": 5}), tmp_path / "store" / "private"
    index(tmp_path)
    unmount(tmp_path, "a")
    write_dicom(archive / "b" / "new.dcm", PatientID="N")
    found = arrivals(str(archive), private, KEY, ("US",))
    assert (found.new, found.gone) == (1, 10)
    decision = decide(1e9, None, found, ScanHistory(), Automation())
    assert decision.waiting is None and not decision.run_key and "10 of 20 known images" in decision.why
    mount(tmp_path, "a")
    back = arrivals(str(archive), private, KEY, ("US",))
    assert decide(1e9, None, back, ScanHistory(), Automation()).waiting is not None  # for the archive to settle


@pytest.mark.parametrize("spoil", [lambda path: path.symlink_to("nowhere"), lambda path: path.write_bytes(b"")])
def test_files_of_a_site_that_are_there_but_no_images_any_more_are_a_loss(tmp_path, monkeypatch, spoil):
    archive = sites(tmp_path, {"a": 5, "b": 5})
    index(tmp_path)
    for path in (archive / "a").rglob("*.dcm"):
        path.unlink()
        spoil(path)
    with pytest.raises(UserError, match="10 of 20 known images and 5 of 10 patients"):
        index(tmp_path)
    confirm(tmp_path, monkeypatch)
    assert (index(tmp_path).rejected.num_rows, index(tmp_path).read) == (10, 0)


def test_a_forgotten_patient_keeps_no_side_present_or_absent(tmp_path, monkeypatch):
    sites(tmp_path, {"a": 6, "b": 6})
    index(tmp_path)
    unmount(tmp_path, "b")
    with pytest.raises(UserError):
        index(tmp_path)
    confirm(tmp_path, monkeypatch)
    index(tmp_path)
    store = Store(tmp_path / "store")
    for number in ("a1", "b1"):
        patient = pseudonym(KEY, "patient", with_issuer(number, None))
        assert patient in sides_of(known_sides(store))
        erase_patient(store, KEY, number, None)
        assert patient not in sides_of(known_sides(store))
    mount(tmp_path, "b")
    assert len(set(index(tmp_path).records["patient"].to_pylist())) == 10
    texts = b"".join(plain_bytes(path) for path in (tmp_path / "store").rglob("*.parquet"))
    found = {number for number in ("a1", "a2", "b1", "b2") if pseudonym(KEY, "patient", number).encode() in texts}
    assert found == {"a2", "b2"}


def test_paths_that_are_not_utf_8_are_counted(tmp_path):
    archive = sites(tmp_path, {"a": 4})
    name = os.fsdecode(b"\xff")
    (archive / "a").rename(archive / name)
    index(tmp_path)
    shutil.rmtree(archive / name)
    write_dicom(archive / "x.dcm", PatientID="X")
    with pytest.raises(UserError, match="8 of 8 known images and 4 of 4 patients"):
        index(tmp_path)


def test_sides_of_absent_patients_do_not_count_in_the_share(tmp_path):
    store = Store(tmp_path / "store").open()
    save_sides(store, pa.table({"patient": ["a", "b", "c"], "split": ["val", "val", "train"]}))
    draws = pa.table({"patient": ["c", "d"], "draw": [0.5, 0.1]})
    made = split_patients(draws, known_sides(store), 0.5)
    assert sides_of(made) == {"c": "train", "d": "val"}


@pytest.mark.parametrize("spelling", ["archive/../archive", "link", "archive/"])
def test_a_loss_is_noticed_however_the_archive_is_spelt(tmp_path: Path, spelling: str) -> None:
    sites(tmp_path, {"a": 10, "b": 10})
    index(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "archive")
    unmount(tmp_path, "a")
    with pytest.raises(UserError, match="20 of 40"):
        index_folder(f"{tmp_path}/{spelling}", tmp_path / "store" / "private")
