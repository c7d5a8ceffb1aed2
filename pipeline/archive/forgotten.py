"""Patients that were forgotten on request, and stay so.

Belongs here: the private list of their pseudonyms. Not here: taking them out of what there is (`forget`).
"""

from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import read_json, write_json


def forgotten_patients(private: Path, key_check: str) -> frozenset[str]:
    """Pseudonyms of the patients that are to be forgotten, under the key that `key_check` stands for.

    Raises `UserError` where they were written down under another key: nobody could be recognised by them.
    """
    path = private / "forgotten.json"
    if not path.is_file():
        return frozenset()
    kept = read_json(path)
    if kept["key"] != key_check:
        raise UserError(
            f"{path} names patients under another pseudonym key: go back to that key, or remove the file and forget "
            "them again."
        )
    return frozenset(kept["patients"])


def remember_to_forget(private: Path, key_check: str, patient: str) -> None:
    """Add the pseudonym `patient` to the list; raises as `forgotten_patients`."""
    patients = sorted(forgotten_patients(private, key_check) | {patient})
    write_json(private / "forgotten.json", {"key": key_check, "patients": patients})
