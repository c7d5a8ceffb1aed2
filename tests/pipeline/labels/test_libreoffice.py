"""A worklist that LibreOffice opens and saves again is read as it was filled in."""

import csv
import io
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.labels.study_groups import StudyGroups, read_study_groups
from pipeline.labels.suggestions import Suggester
from pipeline.labels.worklist import with_suggestions, worklist_csv
from pipeline.recipe.labels import Labels
from pipeline.tables import UNMAPPED_DESCRIPTIONS

pytestmark = pytest.mark.integration
SOFFICE = shutil.which("soffice")
UTF_8, QUOTE = 76, 34
DESCRIPTIONS = [
    "ÉCHOGRAPHIE HÉPATIQUE",
    "US SCHILDDRÜSE; LINKS",
    'US "LIVER", RIGHT',
    "=AB",
    "+LEBER",
    "-NIERE",
    "@US",
    "US 腎臓",
    "(S) US ABD 1/2",
    "76705",
]


def filled_in(groups: str) -> str:
    """The worklist of DESCRIPTIONS with `groups` in each row, reviewed."""
    counts = [{"study_description": text, "images": 2, "patients": 1} for text in DESCRIPTIONS]
    unmapped = pa.Table.from_pylist(counts, schema=UNMAPPED_DESCRIPTIONS.schema)
    names = Labels().groups
    text = worklist_csv(with_suggestions(unmapped, Suggester(StudyGroups({}), names)))
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    filled = io.StringIO()
    writer = csv.DictWriter(filled, list(rows[0]))
    writer.writeheader()
    writer.writerows({**row, "groups": groups, "reviewer": "Zoë", "reviewed_on": "2026-11-23"} for row in rows)
    return "\ufeff" + filled.getvalue()


@pytest.mark.skipif(SOFFICE is None, reason="no LibreOffice on this machine: apt-get install libreoffice-calc")
@pytest.mark.parametrize(("separator", "quoted"), [(";", "true"), ("\t", "false")], ids=["semicolon, quoted", "tab"])
def test_a_worklist_that_libreoffice_saved_again_is_read_as_filled_in(
    tmp_path: Path, separator: str, quoted: str
) -> None:
    worklist, saved = tmp_path / "unmapped.csv", tmp_path / "saved"
    worklist.write_text(filled_in("liver,abdomen"), encoding="utf-8", newline="")
    options = f"{ord(separator)},{QUOTE},{UTF_8},1,,0,{quoted},true,false"
    subprocess.run(
        [
            *(str(SOFFICE), f"-env:UserInstallation=file://{tmp_path}/profile", "--headless"),
            f"--infilter=Text - txt - csv (StarCalc):{ord(',')},{QUOTE},{UTF_8},1",
            *("--convert-to", f"csv:Text - txt - csv (StarCalc):{options}", "--outdir", str(saved), str(worklist)),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    read = read_study_groups(saved / "unmapped.csv", Labels().groups)
    assert read.mapping == dict.fromkeys(DESCRIPTIONS, ("liver", "abdomen"))
