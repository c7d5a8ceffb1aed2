"""`python -m pipeline.archive locate ID`, `forget PATIENT_ID`, `gone`, `preflight`: what concerns the private folder.

Belongs here: this command line. Not here: anything that prints a path or an identifier without being asked.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.archive.listing import locate
from pipeline.archive.losses import confirm
from pipeline.archive.protections import protection_lines, protections
from pipeline.archive.source import normalized
from pipeline.command import command
from pipeline.locks import archive_lock
from pipeline.privacy.forget import Forgotten, forget
from pipeline.privacy.identity import archive_key
from pipeline.store import Store

_NAMED = 5  # files


@command
def main(arguments: list[str]) -> None:
    """Run the command; returns the exit code, 1 if nobody and nothing is known by that name."""
    asked = _parser().parse_args(arguments)
    store = Store(Path(os.environ.get("SONOTAG_STORE") or "store").absolute())
    if asked.command == "preflight":
        print(*protection_lines(protections()), sep="\n")
        return
    archive = normalized(os.environ.get("SONOTAG_ARCHIVE") or str(store.phantom / "archive"))
    key = archive_key(archive, store.private, os.environ)
    if asked.command == "locate":
        print(locate(store.private, asked.id, archive, key))
    elif asked.command == "gone":
        with archive_lock(store, _say):
            print(f"Confirmed: the next `ingest` takes {confirm(store.private)} images out.")
    else:
        print(_told(forget(store, key, asked.patient_id.strip(), asked.issuer, _say)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.archive", description="The archive's private side; the store is SONOTAG_STORE."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("locate", help="print the path of an archive file")
    command.add_argument("id", help="a file id such as f_0123456789abcdef, or a frame's id")
    commands.add_parser("preflight", help="print which protections hold here while hostile files are read")
    command = commands.add_parser("forget", help="take a patient out of index, labels, caches and pool, for good")
    command.add_argument("patient_id", help="PatientID as the files state it")
    command.add_argument("--issuer", help="IssuerOfPatientID, where the files state one")
    commands.add_parser("gone", help="confirm that the images for which `ingest` has stopped are gone for good")
    return parser


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _of_another_number(files: Sequence[str]) -> list[str]:
    """What to do about files in the patient's studies that stay."""
    if not files:
        return []
    return [
        f"{len(files)} files in the patient's studies name another number, and stay: if that is the same patient, "
        "forget that number too (`locate` prints their paths): "
        f"{', '.join(files[:_NAMED])}{' ...' if files[_NAMED:] else ''}"
    ]


def _told(forgotten: Forgotten) -> str:
    lines = [
        f"Forgotten: {forgotten.files} files and {forgotten.images} cached images; no later run takes them in.",
        *_of_another_number(forgotten.others),
        "Run the job `ingest` before training again: the images that stay have moved up in the cache.",
        "What saw the patient and cannot be made to forget it, but can be trained again without:"
        if forgotten.saw
        else "No encoder and no model in the store saw the patient.",
        *(f"  {folder}" for folder in forgotten.saw),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
