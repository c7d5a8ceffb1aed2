"""Whether a file is still the one that the index describes, when its pixels are decoded."""

from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.archive.examine import row_of
from pipeline.archive.header import read_header
from pipeline.archive.quarantine import Reason, Rejected, Rejection
from pipeline.archive.source import stat

CHANGED = Rejection(Reason.CHANGED, "changed since the index: run the job `ingest` again")


@dataclass(frozen=True, slots=True)
class Indexed:
    """What the index recorded of a file: its state, and whose image it is, under pseudonyms made with `key`."""

    size: int
    version: str
    sop_instance: str
    patient: str
    modalities: tuple[str, ...]
    key: bytes = field(repr=False)

    def refuse_another(self, file: BinaryIO) -> None:
        """Raise `Rejected` (changed) if `file`, the bytes that are to be decoded, is another image or patient's.

        Size and time alone do not tell: a copy that keeps both can take a file's place.
        """
        size = file.seek(0, 2)
        try:
            row = row_of(read_header(file, size, self.modalities), self.key)
        except Rejected:
            raise Rejected(CHANGED.reason, CHANGED.detail) from None
        if (size, row["sop_instance"], row["patient"]) != (self.size, self.sop_instance, self.patient):
            raise Rejected(CHANGED.reason, CHANGED.detail)
        file.seek(0)

    def is_state_of(self, archive: str, path: str) -> bool:
        """Whether the file at `path`, or the zip of a member, has the recorded state now, after it was read.

        Raises `OSError` if that cannot be read.
        """
        now = stat(archive, path)
        return now is not None and now.version == self.version and (now.path != path or now.size == self.size)
