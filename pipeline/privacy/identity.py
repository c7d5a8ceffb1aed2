"""The pseudonym key, and the keyed pseudonyms of patients, studies, series, instances and files."""

import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import atomic_replace, make_folder, temporary_beside
from pipeline.mirrored import copy_of
from pipeline.privacy.phantom_marker import is_phantom

KEY_VARIABLE = "SONOTAG_PSEUDONYM_KEY"
KEY_BYTES = 16
"""Minimum length of a key in bytes."""

PUBLIC_DEMO_KEY = b"sonotag phantom clinic: a public key, never for real patients"
"""The phantom's key, public so that two clones give equal pseudonyms; it protects no patient."""

_DRAW_SALT = b"sonotag patient split\0"


def archive_key(archive: str, private: Path, environment: Mapping[str, str]) -> bytes:
    """The key for `archive`, a folder or URL: the public one for the phantom unless `environment` has one, else secret.

    Raises as `load_key`.
    """
    if not environment.get(KEY_VARIABLE) and is_phantom(archive):
        return PUBLIC_DEMO_KEY
    return load_key(private, environment)


def load_key(private: Path, environment: Mapping[str, str]) -> bytes:
    """The pseudonym key: SONOTAG_PSEUDONYM_KEY of `environment`, else the file `pseudonym.key` in `private`.

    Writes the file on first use, with 32 random bytes (as hex) and mode 0600. Raises `UserError` for a key shorter than
    16 bytes, for the phantom's public key, for a file that differs from its copy, and for one that cannot be read or
    written; no message contains the key.
    """
    given = environment.get(KEY_VARIABLE)
    if given:
        return _secret(given.encode(), KEY_VARIABLE)
    path = private / "pseudonym.key"
    try:
        return _secret(_kept_key(path).strip(), str(path))
    except OSError as error:
        raise UserError(f"Pseudonym key {path}: {error.strerror}.") from None


def _kept_key(path: Path) -> bytes:
    """The content of the key's file, restored from its copy if it is missing or truncated.

    A truncated key would silently be another key.
    """
    copy = copy_of(path)
    if not path.exists() and not copy.exists():
        _make_key(path)
    key, second = (each.read_bytes() if each.exists() else b"" for each in (path, copy))
    if key != second and second.startswith(key):
        _put(path, second)
        logging.getLogger(__name__).warning("%s was missing or cut short. It is restored from its copy.", path)
        return second
    if key != second and not key.startswith(second):
        raise UserError(
            f"{path} differs from its copy {copy.name}: if the key was not changed on purpose, replace it by the copy, "
            "else remove the copy."
        )
    if key != second:
        _put(copy, key)
    return key


def _put(path: Path, key: bytes) -> None:
    with atomic_replace(path) as temporary:
        temporary.write_bytes(key)


def _secret(key: bytes, source: str) -> bytes:
    if key == PUBLIC_DEMO_KEY:
        raise UserError(f"{source} holds the phantom clinic's key, which is public: choose a secret one.")
    if len(key) < KEY_BYTES:
        raise UserError(f"{source} holds a pseudonym key of {len(key)} bytes; at least {KEY_BYTES} are needed.")
    return key


def _make_key(path: Path) -> None:
    """Write a new key atomically, readable by its owner only; of two concurrent processes, the first one wins."""
    make_folder(path.parent)
    temporary = temporary_beside(path)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def pseudonym(key: bytes, kind: str, value: str) -> str:
    """32 hex digits: HMAC-SHA256 under `key` of `kind`, a NUL and `value` (UTF-8), cut in half.

    Kinds are patient, study, series, sop_instance and file, so that equal values of two kinds share no pseudonym.
    """
    message = f"{kind}\0{value}".encode("utf-8", "surrogateescape")
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]


def number_pseudonym(key: bytes, number: str) -> str:
    """The pseudonym of a patient's number, without its issuer and independent of its spelling."""
    return pseudonym(key, "patient", canonical_number(number))


def canonical_number(number: str) -> str:
    """A patient's number in capitals and with single spaces, since labelled sets spell it differently than headers.

    Leading zeros stay: without them it may be another patient's.
    """
    return " ".join(number.upper().split())


def with_issuer(patient_id: str, issuer: str | None) -> str:
    """A patient's number with its issuer: the same number from two issuers is two patients."""
    return f"{issuer}\\{patient_id}" if issuer else patient_id


def key_check(key: bytes) -> str:
    """16 hex digits that identify `key` without revealing it."""
    return hashlib.sha256(pseudonym(key, "key_check", "").encode()).hexdigest()[:16]


def file_id(key: bytes, relative: str) -> str:
    """`f_` and 16 hex digits for the file at the POSIX path `relative` to the archive."""
    return f"f_{pseudonym(key, 'file', relative)[:16]}"


def patient_draw(patient: str) -> float:
    """A number in [0, 1) that orders the patients of a split; `patient` is the raw, unkeyed identity.

    It does not depend on the pseudonym key, so a new key moves no patient across the split. It is SHA-256 with a
    constant salt, so a patient's number could be guessed from it: keep it in the private folder.
    """
    return int.from_bytes(hashlib.sha256(_DRAW_SALT + patient.encode("utf-8", "surrogateescape")).digest()[:8]) / 2**64
