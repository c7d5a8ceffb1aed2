"""`python -m pipeline.archive locate ID`, `forget PATIENT_ID`, `gone`, `preflight`: the archive's private records."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.archive.erase import Erasure, erase_patient
from pipeline.archive.listing import locate
from pipeline.archive.location import normalized
from pipeline.archive.missing_images import confirm
from pipeline.archive.protections import protection_lines, protections
from pipeline.command import command
from pipeline.locks import archive_lock
from pipeline.privacy.identity import archive_key
from pipeline.store import Store

_NAMED = 5  # files


@command
def main(arguments: list[str]) -> None:
    """Run the command; the exit code is 1 if the file or patient is unknown."""
    options = _parser().parse_args(arguments)
    store = Store(Path(os.environ.get("SONOTAG_STORE") or "store").absolute())
    if options.command == "preflight":
        print(*protection_lines(protections()), sep="\n")
        return
    store.up_to_date()
    archive = normalized(os.environ.get("SONOTAG_ARCHIVE") or str(store.phantom / "archive"))
    key = archive_key(archive, store.private, os.environ)
    if options.command == "locate":
        print(locate(store.private, options.id, archive, key))
    elif options.command == "gone":
        with archive_lock(store, _log):
            print(f"Confirmed: the next `ingest` removes {confirm(store.private)} images.")
    else:
        print(_report(erase_patient(store, key, options.patient_id.strip(), options.issuer, _log)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.archive",
        description="Look up or erase private records of the archive; the store is SONOTAG_STORE.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("locate", help="print the path of an archive file")
    command.add_argument("id", help="a file id such as f_0123456789abcdef, or a frame's id")
    commands.add_parser("preflight", help="print which protections against hostile files hold on this machine")
    command = commands.add_parser("forget", help="erase a patient from index, labels, caches and pool, for good")
    command.add_argument("patient_id", help="PatientID as the files state it")
    command.add_argument("--issuer", help="IssuerOfPatientID, if the files state one")
    commands.add_parser("gone", help="confirm that the images for which `ingest` has stopped are gone for good")
    return parser


def _log(line: str) -> None:
    print(line, file=sys.stderr)


def _other_patients_files(files: Sequence[str]) -> list[str]:
    if not files:
        return []
    return [
        f"{len(files)} files in the patient's studies name another number, and stay: if that is the same patient, "
        "forget that number too (`locate` prints their paths): "
        f"{', '.join(files[:_NAMED])}{' ...' if files[_NAMED:] else ''}"
    ]


def _report(erasure: Erasure) -> str:
    lines = [
        f"Forgotten: {erasure.files} files and {erasure.images} cached images; no later run reads them.",
        *_other_patients_files(erasure.other_patients_files),
        "Run the job `ingest` before training again: the remaining images have moved up in the cache.",
        "Networks that were trained on the patient, to be trained again without:"
        if erasure.exposed_models
        else "No encoder and no model in the store was trained on the patient.",
        *(f"  {folder}" for folder in erasure.exposed_models),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
