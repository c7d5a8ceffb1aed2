"""Which training sets an encoder has seen, by its model card, and the records of their patients.

Not here: what a patient's erasure makes obsolete (`pipeline.privacy.training_exposure`).
"""

import re
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.files import read_table

_DIGEST = re.compile(r"^- digest of images and split: ([0-9a-f]{16,64})$", re.MULTILINE)
_INHERITED = re.compile(r"^- digests of images and split of its start: ([0-9a-f ]+)$", re.MULTILINE)


def training_set_digest(encoder: Path) -> str | None:
    """Digest of a pool's images and split (`image_digest`) in an encoder's model card; None without a card."""
    stated = _DIGEST.search(_card(encoder))
    return stated[1] if stated else None


def training_set_digests(encoder: Path) -> tuple[str, ...]:
    """As `training_set_digest`, then those of the encoders that it started from."""
    own, inherited = training_set_digest(encoder), _INHERITED.search(_card(encoder))
    if own is None:
        return ()
    return tuple(dict.fromkeys((own, *(inherited[1].split() if inherited else ()))))


def record_path(private: Path, digest: str) -> Path:
    """The table of the patients of the training set with that digest."""
    return private / "training_sets" / f"{digest[:16]}.parquet"


def patients_trained_on(private: Path, digests: Iterable[str]) -> set[str]:
    """Pseudonyms of the patients on the training side of the training sets with these digests.

    Training sets without a record, and older records, which have no sides, add none.
    """
    records = (record_path(private, stated) for stated in digests)
    tables = (read_table(record) for record in records if record.is_file())
    return {patient for rows in tables if "split" in rows.column_names for patient in on_training_side(rows)}


def on_training_side(rows: pa.Table) -> list[str]:
    """The patients of a record that were trained on."""
    trained: list[str] = rows["patient"].filter(pc.equal(rows["split"], "train")).to_pylist()
    return trained


def _card(encoder: Path) -> str:
    card = encoder / "model_card.md"
    return card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
