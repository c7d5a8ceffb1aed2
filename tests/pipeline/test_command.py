"""Exit codes of commands: 0, 1 with one sentence for a user's mistake, a traceback for a bug."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.command import command, recipe_and_store
from pipeline.errors import UnreachableError, UserError
from pipeline.files import write_json
from tests.conftest import ROOT

COMMANDS = [
    path for path in sorted((ROOT / "pipeline").rglob("*.py")) if 'if __name__ == "__main__"' in path.read_text()
]


@command
def _main(mistake: Exception | None, *, said: str = "") -> None:
    if mistake:
        raise mistake
    print(said)


def test_success_exits_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(None, said="done") == 0
    assert capsys.readouterr() == ("done\n", "")


@pytest.mark.parametrize("mistake", [UserError("No such folder."), UnreachableError("No such folder.")])
def test_a_user_error_exits_with_one_and_prints_only_its_message(
    mistake: UserError, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(mistake) == 1
    assert capsys.readouterr() == ("", "No such folder.\n")


def test_a_store_of_an_older_layout_is_migrated_and_no_store_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONOTAG_STORE", str(tmp_path / "store"))
    recipe_and_store()
    assert not any(tmp_path.iterdir())
    encoder = tmp_path / "store" / "experiments" / "demo" / "encoders" / "resnet50_ce"
    encoder.mkdir(parents=True)
    write_json(tmp_path / "store" / "store.json", {"schema_version": 2})
    recipe_and_store()
    assert encoder.with_name("resnet50_ce_seed-0").is_dir() and not encoder.exists()
    write_json(tmp_path / "store" / "store.json", {"schema_version": 1})
    with pytest.raises(UserError, match="has layout 1"):
        recipe_and_store()


def test_a_bug_keeps_its_stack() -> None:
    with pytest.raises(ZeroDivisionError):
        _main(ZeroDivisionError())


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_has_the_same_exit_codes(path: Path) -> None:
    assert "@command\ndef main(" in path.read_text(encoding="utf-8")


def test_a_user_error_ends_a_real_process_with_exit_code_1(tmp_path: Path) -> None:
    asked = [
        sys.executable,
        "-m",
        "pipeline.tasks.thyroid_set",
        str(tmp_path / "none"),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and "no case of the thyroid set" in done.stderr
