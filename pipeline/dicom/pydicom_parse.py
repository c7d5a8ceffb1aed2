"""Parse any DICOM header that pydicom can read, with limits on reads, bytes and inflated size."""

import re
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import BinaryIO, Final, cast

from pydicom.charset import default_encoding
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.dicom.parsed_file import PIXEL_TAGS, ParsedFile, PixelElement
from pipeline.dicom.quiet import quiet
from pipeline.dicom.rejections import Reason, Rejected

MAX_INFLATED_BYTES: Final = 2**28
"""Size limit of an inflated data set: 256 MiB."""
MAX_HEADER_BYTES: Final = 2**28
"""Limit on the header bytes read: 256 MiB; values that are not requested are skipped, not read."""
MAX_READS: Final = 500_000
"""Limit on the reads for one header, two or three per element: about two seconds."""

_UID: Final = re.compile("[0-9.]{1,64}")
_NATIVE: Final = {  # by (implicit VR, little endian)
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}


class _Deflated(Exception):  # noqa: N818 - not an error: the data set must be inflated first
    """Raised when pydicom requests the rest of the file, which it does only to inflate it."""


class BoundedReader:
    """A file for pydicom's parser that never reads past its end, and limits the number and the sum of reads.

    Without it, pydicom would allocate as many bytes as a wrong length states.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._reads_left, self._bytes_left = MAX_READS, MAX_HEADER_BYTES
        self.tell, self.seek = file.tell, file.seek

    def read(self, length: int = -1) -> bytes:
        """At most `length` bytes. Raises `Rejected` (over_limits)."""
        if length < 0:
            raise _Deflated
        length = min(length, max(self._size - self._file.tell(), 0))
        self._reads_left -= 1
        self._bytes_left -= length
        if self._reads_left < 0 or self._bytes_left < 0:
            raise Rejected(Reason.OVER_LIMITS, "the header has more elements or bytes than the limits allow")
        return self._file.read(length)


def pydicom_parse(file: BinaryIO, size: int, tags: frozenset[int]) -> ParsedFile:
    """Find `tags` with pydicom's parser, which copes with most irregular files. Raises `Rejected`."""
    try:
        with quiet():
            return _parse(file, size, tags)
    except Rejected:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if any(isinstance(cause, RecursionError | MemoryError) for cause in _causes(error)):
            why = "the header is nested too deep or needs too much memory"
            raise Rejected(Reason.OVER_LIMITS, why) from None
        raise Rejected(Reason.UNREADABLE_HEADER, f"parsing stopped with {type(error).__name__}") from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and its contexts: at the recursion limit, pydicom raises that it cannot read a tag."""
    while error:
        yield error
        error = error.__context__


def _parse(file: BinaryIO, size: int, tags: frozenset[int]) -> ParsedFile:
    file.seek(0)
    reader = cast(BinaryIO, BoundedReader(file, size))
    found: list[PixelElement] = []
    try:
        dataset = read_partial(reader, stop_when=_stop_at_pixels(reader, found), force=True, specific_tags=list(tags))
    except _Deflated:
        return _parse_deflated(file, tags)
    return _parsed_file(file, size, dataset, dataset, found)


def _parse_deflated(file: BinaryIO, tags: frozenset[int]) -> ParsedFile:
    """Parse a data set that is deflated from the file's current position on (PS3.5 section A.5)."""
    begin = file.tell()
    file.seek(0)
    meta = read_partial(BytesIO(file.read(begin)), force=True)
    data = _inflate(file)
    size = len(data.getbuffer())
    reader = cast(BinaryIO, BoundedReader(data, size))
    found: list[PixelElement] = []
    dataset = read_dataset(reader, False, True, stop_when=_stop_at_pixels(reader, found), specific_tags=list(tags))
    return _parsed_file(data, size, dataset, meta, found)


def _stop_at_pixels(file: BinaryIO, found: list[PixelElement]) -> Callable[[int, str | None, int], bool]:
    """A callback that stops pydicom at the pixel data, and appends their position to `found`."""

    def stop(tag: int, vr: str | None, length: int) -> bool:
        if tag in PIXEL_TAGS:
            found.append(PixelElement(int(tag), vr, file.tell(), length))
        return bool(found)

    return stop


def _inflate(file: BinaryIO) -> BytesIO:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = BytesIO()
    while not inflater.eof:
        block = inflater.unconsumed_tail or file.read(2**16)
        if not block:
            raise Rejected(Reason.INCOMPLETE, "the deflated data set breaks off")
        data.write(inflater.decompress(block, 2**20))
        if data.tell() > MAX_INFLATED_BYTES:
            raise Rejected(Reason.OVER_LIMITS, "the data set inflates to more than the limit")
    data.seek(0)
    return data


def _parsed_file(
    file: BinaryIO, size: int, dataset: Dataset, head: FileDataset, found: list[PixelElement]
) -> ParsedFile:
    """The result, from `head` with the preamble and meta header and `dataset` with the elements."""
    encodings = dataset.original_character_set or default_encoding
    native = _NATIVE[cast(tuple[bool, bool], dataset.original_encoding)]
    return ParsedFile(
        file=file,
        size=size,
        elements={int(element.tag): element for element in dataset.elements()},
        encodings=(encodings,) if isinstance(encodings, str) else tuple(encodings),
        transfer_syntax=_meta_uid(head, "TransferSyntaxUID") or str(native),
        pixels=found[0] if found else None,
        has_preamble=head.preamble is not None,
        media_class=_meta_uid(head, "MediaStorageSOPClassUID"),
    )


def _meta_uid(head: FileDataset, field: str) -> str | None:
    """The meta header's `field`, or None if it is not a well-formed UID."""
    try:
        stated = str(head.file_meta.get(field) or "")
    except Exception:  # for instance of a VR that does not exist
        return None
    return stated if _UID.fullmatch(stated) else None
