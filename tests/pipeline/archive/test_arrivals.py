"""Arrivals since the last scan, and the decision when to read the archive."""

import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from pipeline.archive import header_reader, scan
from pipeline.archive.arrivals import ATTEMPTS, Arrivals, Decision, ScanHistory, Waiting, arrivals, backoff, decide
from pipeline.archive.workers import Failed
from pipeline.errors import UserError
from pipeline.recipe.automation import Automation
from tests.pipeline.archive.synthetic import KEY, index_folder, noise, write_dicom
from tests.pipeline.archive.zipped import zip_of

SETTINGS = Automation(settle_minutes=5, longest_wait_hours=2)
MINUTE, HOUR = 60.0, 3600.0


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """An archive of three images and a zip with two, read once."""
    archive = tmp_path / "archive"
    for name in ("a", "b", "folder/c"):
        write_dicom(archive / name, noise(), PatientID=f"P{name[-1]}")
    for name in ("one", "two"):
        write_dicom(tmp_path / "member" / name, noise(seed=5), PatientID=f"P{name}")
    (archive / "z.zip").write_bytes(
        zip_of([(path.name, path.read_bytes()) for path in (tmp_path / "member").iterdir()])
    )
    index_folder(archive, tmp_path / "private")
    return tmp_path


def look(clinic: Path, key: bytes = KEY, modalities: tuple[str, ...] = ("US",)) -> Arrivals:
    return arrivals(str(clinic / "archive"), clinic / "private", key, modalities)


def counts(found: Arrivals) -> tuple[int, int, int, int]:
    return found.files, found.new, found.changed, found.gone


def test_what_was_read_is_not_new(clinic: Path) -> None:
    assert counts(look(clinic)) == (4, 0, 0, 0)
    assert not look(clinic).any


def test_new_changed_and_gone_are_counted_and_a_zip_is_one_file(clinic: Path) -> None:
    archive = clinic / "archive"
    before = look(clinic).state
    write_dicom(archive / "d", noise(), PatientID="Pd")
    write_dicom(archive / "e", noise(), PatientID="Pe")
    write_dicom(archive / "a", noise(20, 20), PatientID="Pa")
    (archive / "z.zip").unlink()
    found = look(clinic)
    assert counts(found) == (5, 2, 1, 1)
    assert found.state != before
    index_folder(archive, clinic / "private")
    assert counts(look(clinic)) == (5, 0, 0, 0)
    shutil.copy(archive / "b", archive / "z.zip")  # a file that comes back is new
    assert counts(look(clinic)) == (6, 1, 0, 0)


def test_a_file_moved_away_and_back_gives_the_state_of_before(clinic: Path) -> None:
    before = look(clinic)
    shutil.move(clinic / "archive" / "a", clinic / "a")
    assert counts(look(clinic)) == (3, 0, 0, 1)
    shutil.move(clinic / "a", clinic / "archive" / "a")
    assert look(clinic) == before


def test_a_file_that_moved_while_it_was_read_is_looked_at_again(clinic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dicom(clinic / "archive" / "d", noise(), PatientID="Pd")
    monkeypatch.setattr(
        scan, "each_in_worker", lambda work, items, readable: [Failed(header_reader._MOVED) for _ in items]
    )
    index_folder(clinic / "archive", clinic / "private")
    assert counts(look(clinic)) == (4 + 1, 0, 1, 0)


def test_under_another_key_or_for_other_modalities_everything_is_to_be_read(clinic: Path) -> None:
    assert counts(look(clinic, b"another key for tests")) == (4, 4, 0, 0)
    assert counts(look(clinic, modalities=("CT", "US"))) == (4, 4, 0, 0)


def test_a_list_of_another_version_is_ignored(clinic: Path) -> None:
    path = clinic / "private" / "scan.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.drop_columns(["settled"]).replace_schema_metadata(rows.schema.metadata | {b"code": b"0"}), path)
    assert counts(look(clinic)) == (4, 4, 0, 0)


def test_the_state_reveals_no_path(clinic: Path) -> None:
    assert look(clinic).state != look(clinic, b"another key for tests").state
    assert len(look(clinic).state) == 32


def test_before_the_first_reading_everything_is_new(clinic: Path) -> None:
    shutil.rmtree(clinic / "private")
    assert counts(look(clinic)) == (4, 4, 0, 0)


def test_an_archive_behind_a_url(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/archive"
    system = fsspec.filesystem("memory")
    for name in ("a", "b"):
        write_dicom(tmp_path / name, noise(), PatientID=name)
        system.pipe(f"/{tmp_path.name}/archive/{name}", (tmp_path / name).read_bytes())
    assert counts(arrivals(url, tmp_path / "private", KEY, ("US",))) == (2, 2, 0, 0)


def test_a_missing_archive_raises_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="SONOTAG_ARCHIVE"):
        arrivals(str(tmp_path / "nowhere"), tmp_path, KEY, ("US",))


# When it is time. Times are seconds from 1,000,000.

NOW = 1_000_000.0
TEN_NEW = Arrivals(files=30, new=10, changed=0, gone=0, state="s10")
NOTHING = Arrivals(files=30, new=0, changed=0, gone=0, state="s0")


def looks(*at: tuple[float, Arrivals], past: ScanHistory | None = None) -> list[Decision]:
    """The decision at each of these times after NOW, each with the cursor of the one before."""
    waiting, decisions = None, []
    for seconds, found in at:
        decisions.append(decide(NOW + seconds, waiting, found, past or ScanHistory(), SETTINGS))
        text = decisions[-1].waiting.text() if decisions[-1].waiting else ""
        waiting = Waiting.read(text)
    return decisions


def test_a_burst_is_one_reading_once_it_has_settled() -> None:
    burst = [(minute * MINUTE, replace(TEN_NEW, new=minute, state=f"s{minute}")) for minute in range(10)]
    after = [(9 * MINUTE + 4 * MINUTE, burst[-1][1]), (9 * MINUTE + 5 * MINUTE, burst[-1][1])]
    decided = looks(*burst, *after)
    assert [bool(decision.run_key) for decision in decided] == [False] * 11 + [True]
    assert "9 new" in decided[-1].why


def test_an_archive_that_never_pauses_is_read_after_the_longest_wait() -> None:
    decided = looks(*((m * MINUTE, replace(TEN_NEW, state=f"s{m}")) for m in range(121)))
    assert [bool(decision.run_key) for decision in decided] == [False] * 120 + [True]


def test_nothing_new_is_not_read() -> None:
    assert not any(decision.run_key for decision in looks((0, NOTHING), (HOUR, NOTHING), (24 * HOUR, NOTHING)))


def test_what_a_reading_has_not_settled_is_not_read_for_ever() -> None:
    decided = looks((0, TEN_NEW), (HOUR, TEN_NEW), past=ScanHistory(last_read=TEN_NEW.state))
    assert not any(decision.run_key for decision in decided)


def test_what_a_person_cancelled_waits_for_a_change() -> None:
    past = ScanHistory(cancelled=TEN_NEW.state)
    assert not any(decision.run_key for decision in looks((0, TEN_NEW), (HOUR, TEN_NEW), past=past))
    assert looks((0, replace(TEN_NEW, state="s11")), (HOUR, replace(TEN_NEW, state="s11")), past=past)[-1].run_key


@pytest.mark.parametrize("failures", [1, 2, 3, 4])
def test_a_failed_reading_is_tried_again_later_and_later(failures: int) -> None:
    past = ScanHistory(failures=failures, failed_states=(TEN_NEW.state,) * failures, last_failure=NOW)
    wait = 10 * MINUTE * 2 ** (failures - 1)
    early, late = looks((wait - 1, TEN_NEW), (wait + 5 * MINUTE, TEN_NEW), past=past)
    assert (early.run_key, bool(late.run_key)) == ("", True)


def test_a_failed_scan_is_retried_even_if_it_wrote_its_list() -> None:
    past = ScanHistory(failures=1, failed_states=(NOTHING.state,), last_failure=NOW)
    assert looks((HOUR, NOTHING), (HOUR + 5 * MINUTE, NOTHING), past=past)[-1].run_key


def test_after_many_failures_the_sensor_waits_for_a_change() -> None:
    past = ScanHistory(failures=ATTEMPTS, failed_states=(TEN_NEW.state,) * ATTEMPTS, last_failure=NOW)
    decided = looks((24 * HOUR, TEN_NEW), (48 * HOUR, TEN_NEW), past=past)
    assert not any(decision.run_key for decision in decided)
    assert "5 times" in decided[-1].why
    changed = replace(TEN_NEW, state="s11")
    assert looks((24 * HOUR, changed), (25 * HOUR, changed), past=past)[-1].run_key


def test_the_pause_never_grows_beyond_hours() -> None:
    assert [backoff(n) / MINUTE for n in (1, 2, 6, 60)] == [10, 20, 320, 360]


def test_each_attempt_has_its_own_run_key_and_a_repeated_tick_has_not() -> None:
    settled = (5 * MINUTE, TEN_NEW)
    first = looks((0, TEN_NEW), settled)[-1].run_key
    assert first == looks((0, TEN_NEW), settled)[-1].run_key
    failed = ScanHistory(failures=1, failed_states=("s10",), last_failure=NOW - HOUR)
    assert looks((0, TEN_NEW), settled, past=failed)[-1].run_key != first
    assert looks((HOUR, TEN_NEW), (HOUR + 5 * MINUTE, TEN_NEW))[-1].run_key != first


@pytest.mark.parametrize("text", [None, "", "null", "[]", '{"state": "s"}', "no JSON", '"text"'])
def test_a_cursor_of_another_version_is_ignored(text: str | None) -> None:
    assert Waiting.read(text) is None
