"""Files with too little or too much pixel data: complete frames are read, and nothing else."""

import io

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, RLELossless
from scipy import ndimage

from pipeline.archive.header_reader import digest_pixels
from pipeline.dicom.header import read_header
from pipeline.dicom.rejections import Reason, Rejected
from tests.pipeline.archive.synthetic import decode_grey, noise, write_dicom

DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"


def smooth(seed=0, height=96, width=128):
    return np.rint(ndimage.gaussian_filter(noise(height, width, seed).astype(float), 3)).astype(np.uint8)


def jpeg(grey, **options):
    packed = io.BytesIO()
    Image.fromarray(grey).save(packed, "JPEG", quality=90, **options)
    return packed.getvalue()


def pictured(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def frames_of(path):
    """The frames of the record, or why there is none."""
    try:
        with path.open("rb") as file:
            return read_header(file, path.stat().st_size, ("US",)).frames
    except Rejected as rejected:
        return rejected.rejection.reason


def compressed(folder, *streams, frames=None, table=True, end=None):
    """A file of `streams`; the last `end` bytes are cut off."""
    content = encapsulate(list(streams), has_bot=table)
    fields = {"PixelData": content, "TransferSyntaxUID": JPEGBaseline8Bit, "NumberOfFrames": frames}
    path = write_dicom(folder / "x.dcm", smooth(), **fields)
    path.write_bytes(path.read_bytes()[: -end if end else None])
    return path


def test_colours_of_an_odd_length_may_lack_their_last_byte(tmp_path):
    rgb = np.repeat(smooth(0, 35, 45)[..., None], 3, -1)
    path = write_dicom(tmp_path / "x", rgb, PixelData=rgb.tobytes()[:-1])
    assert frames_of(path) == 1
    grey = decode_grey(path, 0)
    assert np.array_equal(grey.ravel()[:-1], rgb[..., 0].ravel()[:-1])
    shorter = write_dicom(tmp_path / "y", rgb, PixelData=rgb.tobytes()[:-3])
    assert frames_of(shorter) is Reason.INCOMPLETE


@pytest.mark.parametrize("table", [True, False])
def test_one_whole_frame_needs_no_delimiter(tmp_path, table):
    stream = jpeg(smooth())
    path = compressed(tmp_path, stream, table=table, end=len(DELIMITER))
    assert path.read_bytes()[-8:] != DELIMITER
    assert frames_of(path) == 1
    assert np.array_equal(decode_grey(path, 0), pictured(stream))


def test_without_delimiter_a_cine_is_whole_if_all_its_frames_are(tmp_path):
    streams = [jpeg(smooth(seed)) for seed in range(3)]
    path = compressed(tmp_path, *streams, frames=3, table=False, end=len(DELIMITER))
    assert frames_of(path) == 3
    assert np.array_equal(decode_grey(path, 2), pictured(streams[2]))
    assert frames_of(compressed(tmp_path, *streams, frames=4, table=False, end=len(DELIMITER))) is Reason.INCOMPLETE


@pytest.mark.parametrize("cut", [9, 20, 400])
def test_a_file_that_breaks_off_within_a_frame_is_incomplete(tmp_path, cut):
    assert frames_of(compressed(tmp_path, jpeg(smooth()), end=cut)) is Reason.INCOMPLETE


@pytest.mark.parametrize("table", [True, False])
def test_of_more_frames_stated_than_stored_those_that_are_there_count(tmp_path, table):
    streams = [jpeg(smooth(seed)) for seed in range(2)]
    path = compressed(tmp_path, *streams, frames=5, table=table)
    assert frames_of(path) == 2
    assert [np.array_equal(decode_grey(path, n), pictured(streams[n])) for n in range(2)] == [True, True]
    with pytest.raises(Rejected):
        decode_grey(path, 2)
    assert digest_pixels(str(path.parent), path.name) is not None


@pytest.mark.parametrize(("height", "width"), [(96, 128), (33, 45)])
def test_native_frames_that_are_stated_and_not_stored_do_not_count(tmp_path, height, width):
    frames = np.stack([smooth(seed, height, width) for seed in range(2)])
    path = write_dicom(tmp_path / "x", frames, NumberOfFrames=5)
    assert frames_of(path) == 2
    assert np.array_equal(decode_grey(path, 1), frames[1])
    path.write_bytes(path.read_bytes()[:-100])  # cut off, or still arriving
    assert frames_of(path) is Reason.INCOMPLETE


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_lacks_its_end_marker_alone_is_read(tmp_path, options):
    whole = jpeg(smooth(), **options)
    path = compressed(tmp_path, whole[:-2])
    assert np.array_equal(decode_grey(path, 0), pictured(whole))


@pytest.mark.parametrize("lost", [3, 4, 6, 20, 300])
@pytest.mark.parametrize("seed", range(3))
def test_a_jpeg_that_lacks_more_than_its_end_marker_is_left_out(tmp_path, lost, seed):
    path = compressed(tmp_path, jpeg(smooth(seed))[:-lost])
    try:
        assert np.array_equal(decode_grey(path, 0), pictured(jpeg(smooth(seed))))  # the last byte can be padding alone
    except Rejected as rejected:
        assert rejected.rejection.reason in {Reason.TRUNCATED_PIXELS, Reason.UNDECODABLE}
    else:
        assert lost == 3


def test_a_cine_of_run_lengths_counts_its_frames(tmp_path):
    rle = b"\1\0\0\0" + (64).to_bytes(4, "little") + bytes(56) + b"\x81\x09" * (96 * 128 // 128)
    path = write_dicom(
        tmp_path / "x", smooth(), NumberOfFrames=3, TransferSyntaxUID=RLELossless, PixelData=encapsulate([rle, rle])
    )
    assert frames_of(path) == 2
    assert np.array_equal(decode_grey(path, 1), np.full((96, 128), 9))
