"""Whether a file is still the one that the index describes, when its pixels are decoded."""

from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.archive.header_reader import patient_identity
from pipeline.archive.source import stat
from pipeline.dicom.header import read_header
from pipeline.dicom.rejections import Reason, Rejected, Rejection
from pipeline.privacy.identity import pseudonym

CHANGED = Rejection(Reason.CHANGED, "changed since the index: run the job `ingest` again")


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose image a file is: its SOP instance and what tells its patient apart, both raw."""

    sop_instance: str = field(repr=False)
    patient: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class State:
    """The state in which a file was indexed, of `modalities`; it can be sent to a worker, which has no key."""

    size: int
    version: str
    modalities: tuple[str, ...]

    def whose(self, file: BinaryIO) -> Whose:
        """Whose image the bytes that are to be decoded are. Raises `Rejected` (changed) for no image, or another size.

        Size and time alone do not tell whether it is the file that was indexed: a copy that keeps both can take its
        place.
        """
        size = file.seek(0, 2)
        try:
            header = read_header(file, size, self.modalities)
        except Rejected:
            raise Rejected(CHANGED.reason, CHANGED.detail) from None
        if size != self.size:
            raise Rejected(CHANGED.reason, CHANGED.detail)
        file.seek(0)
        return Whose(header.sop_instance, patient_identity(header)[1])

    def is_state_of(self, archive: str, path: str) -> bool:
        """Whether the file at `path`, or the zip of a member, has the recorded state now, after it was read.

        Raises `OSError` if that cannot be read.
        """
        now = stat(archive, path)
        return now is not None and now.version == self.version and (now.path != path or now.size == self.size)


@dataclass(frozen=True, slots=True)
class Indexed:
    """What the index recorded of a file: its state, and whose image it is, under pseudonyms made with `key`."""

    state: State
    sop_instance: str
    patient: str
    key: bytes = field(repr=False)

    def is_of(self, whose: Whose) -> bool:
        """Whether the index says the same."""
        found = (pseudonym(self.key, "sop_instance", whose.sop_instance), pseudonym(self.key, "patient", whose.patient))
        return found == (self.sop_instance, self.patient)
