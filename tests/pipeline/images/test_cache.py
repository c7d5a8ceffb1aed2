"""The image cache: assignment to shards, their content, reading them back."""

import hashlib
import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.images.cache import (
    CachedImage,
    CroppedImage,
    cached_images,
    check_sample,
    damaged_images,
    host_memory,
    load_pixels,
    read_shard,
    shard_content,
    shard_name,
    shard_of,
    write_shard,
)
from pipeline.tables import IMAGES

INSTANCES = [f"{number:02x}{'0' * 30}" for number in (3, 67, 131, 200)]  # 3, 67 and 131 share a shard


def image(instance, frame, grey):
    return CachedImage(instance, frame, CroppedImage(grey, f"source {frame}", "regions", 0.5, None))


@pytest.fixture
def cache(tmp_path):
    """A cache of 600 images in one shard and one in another, and the pixels by instance and frame."""
    rng = np.random.default_rng(0)
    pixels = {(INSTANCES[n // 200], n % 200): rng.integers(0, 256, (4, 6), dtype=np.uint8) for n in range(601)}
    for shard in range(64):
        rows = [image(i, frame, grey) for (i, frame), grey in pixels.items() if shard_of(i) == shard]
        write_shard(tmp_path / shard_name(shard), rows, 4, 6)
    write_json(tmp_path / "cache.json", {"height": 4, "width": 6})
    return tmp_path, pixels


def test_an_instance_s_shard_is_its_first_byte_modulo_64():
    assert [shard_of(instance) for instance in INSTANCES] == [3, 3, 3, 8]
    assert [shard_name(shard_of(instance)) for instance in INSTANCES[2:]] == ["part-03.parquet", "part-08.parquet"]


def test_a_shard_holds_rows_in_groups_of_256_with_lz4(cache):
    folder, pixels = cache
    assert sorted(path.name for path in folder.glob("part-*")) == ["part-03.parquet", "part-08.parquet"]
    file = pq.ParquetFile(folder / "part-03.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [256, 256, 88]
    assert file.metadata.row_group(0).column(0).compression.startswith("LZ4")
    row = file.read().slice(299, 1).to_pylist()[0]
    assert row["pixels"] == pixels[INSTANCES[1], 99].tobytes()
    assert row["image_digest"] == hashlib.sha256(row["pixels"]).hexdigest()
    placed = {"patient", "shard", "position"}  # known from a row's position, and from the index
    assert file.schema_arrow.names == [name for name in IMAGES.schema.names if name not in placed] + ["pixels"]


def test_a_shard_is_read_back_as_it_was_written_and_states_its_content(cache):
    folder, pixels = cache
    back = list(read_shard(folder / "part-03.parquet", 4, 6))
    assert [(one.sop_instance, one.frame) for one in back] == sorted(k for k in pixels if shard_of(k[0]) == 3)
    assert all(np.array_equal(one.image.pixels, pixels[one.sop_instance, one.frame]) for one in back)
    assert (back[7].image.source_digest, back[7].image.row_spacing_mm) == ("source 7", 0.5)
    assert back[7].image.column_spacing_mm is None
    before = shard_content(folder / "part-03.parquet")
    assert write_shard(folder / "copy", iter(back), 4, 6) == shard_content(folder / "copy") == before
    assert write_shard(folder / "copy", iter(back[1:]), 4, 6) != before


def test_a_shard_without_images_is_no_file(cache):
    folder, _ = cache
    assert write_shard(folder / "part-08.parquet", iter([]), 4, 6) is None
    assert not (folder / "part-08.parquet").exists()
    assert shard_content(folder / "part-08.parquet") is None and not list(read_shard(folder / "part-08.parquet", 4, 6))


def test_a_damaged_shard_states_nothing(cache):
    folder, _ = cache
    path = folder / "part-03.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert shard_content(path) is None


def test_the_same_images_give_the_same_bytes(tmp_path):
    images = [image(INSTANCES[0], frame, np.full((4, 6), frame, np.uint8)) for frame in range(3)]
    for name in ("a", "b"):
        write_shard(tmp_path / name, iter(images), 4, 6)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pixels_come_back_in_the_pool_s_order(cache):
    folder, pixels = cache
    rows = cached_images(folder)
    assert rows.num_rows == 601
    order = np.random.default_rng(1).permutation(601)[:400]
    pool = rows.take(order)
    expected = [pixels[i, f] for i, f in zip(pool["sop_instance"].to_pylist(), pool["frame"].to_pylist(), strict=True)]
    assert np.array_equal(load_pixels(folder, pool), np.stack(expected))


@pytest.mark.parametrize("memory_share", [0.5, 0])
def test_no_images_are_an_empty_array(cache, memory_share):
    assert load_pixels(cache[0], cached_images(cache[0]).slice(0, 0), memory_share).shape == (0, 4, 6)


def test_an_image_can_be_requested_twice(cache):
    folder, pixels = cache
    pool = cached_images(folder).take([599, 3, 599, 600, 3])
    expected = [pixels[i, f] for i, f in zip(pool["sop_instance"].to_pylist(), pool["frame"].to_pylist(), strict=True)]
    assert np.array_equal(load_pixels(folder, pool), np.stack(expected))


def test_more_images_than_memory_holds_are_the_same_images_in_a_file_that_has_no_name(cache):
    folder, _ = cache
    pool = cached_images(folder)
    before = sorted(folder.iterdir())
    mapped = load_pixels(folder, pool, memory_share=0)
    assert isinstance(mapped.base, np.memmap)
    assert sorted(folder.iterdir()) == before
    assert np.array_equal(mapped, load_pixels(folder, pool))
    assert torch.equal(torch.from_numpy(mapped)[7], torch.from_numpy(np.array(mapped[7])))


def test_a_full_disk_is_an_error_that_names_the_folder(cache):
    folder, _ = cache
    pool = cached_images(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # bytes a file may have: as on a full disk
    try:
        with pytest.raises(UserError, match=f"{folder}.* GB of images"):
            load_pixels(folder, pool, memory_share=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_machine_has_no_more_memory_than_is_installed():
    total = Path("/proc/meminfo").read_text().partition("MemTotal:")[2].split()[0]
    assert 0 < host_memory() <= int(total) * 1024


def test_a_missing_shard_is_a_sentence(cache):
    folder, _ = cache
    pool = cached_images(folder)
    (folder / "part-08.parquet").unlink()
    with pytest.raises(UserError, match=r"part-08\.parquet.*missing"):
        load_pixels(folder, pool)
    with pytest.raises(UserError, match=r"nowhere.*missing"):
        load_pixels(folder / "nowhere", pool)


def test_a_damaged_shard_is_a_sentence(cache):
    folder, _ = cache
    pool, path = cached_images(folder), folder / "part-03.parquet"
    whole = path.read_bytes()
    for damaged in (whole[:-20], b"", whole[:4] + bytes(20_000) + whole[20_004:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"part-03\.parquet.*damaged"):
            load_pixels(folder, pool)


def test_pixels_that_are_not_those_of_their_digest_are_named(cache):
    """The file is intact; only the pixels of two images differ from their digests."""
    folder, _ = cache
    rows, path = cached_images(folder), folder / "part-03.parquet"
    assert damaged_images(folder, rows) == []
    table = pq.read_table(path)
    pixels = table["pixels"].to_pylist()
    pixels[7], pixels[300] = bytes(24), pixels[300][:-1] + bytes([pixels[300][-1] ^ 1])
    at = table.schema.get_field_index("pixels")
    rotten = table.set_column(at, table.schema.field(at), pa.array(pixels, pa.binary(24)))
    pq.write_table(rotten, path, row_group_size=256, compression="lz4")
    names = [f"{table['sop_instance'][row]}:{table['frame'][row]}" for row in (7, 300)]
    assert sorted(damaged_images(folder, rows)) == sorted(names)
    report = check_sample(folder, rows, "a seed")  # of all: 601 images in two shards
    assert (report.images, report.shards, sorted(report.damaged)) == (601, 2, sorted(names))


def test_a_sample_is_of_few_shards_and_images(cache, monkeypatch):
    folder, _ = cache
    monkeypatch.setattr("pipeline.images.cache.SAMPLED_SHARDS", 1)
    monkeypatch.setattr("pipeline.images.cache.SAMPLED_IMAGES", 10)
    found = {check_sample(folder, cached_images(folder), str(seed)).images for seed in range(20)}
    assert found == {1, 10}  # the shard of one image, or ten of the other shard


def test_a_shard_of_other_images_is_a_sentence(cache):
    folder, _ = cache
    pool = cached_images(folder)
    rest = pool.drop_columns(["position"])
    beyond = rest.append_column("position", pa.array([10_000] * 601))
    swapped = rest.append_column("position", pa.array([0] * 601))
    of_other_pixels = pool.set_column(pool.schema.get_field_index("image_digest"), "image_digest", [["0" * 64] * 601])
    for wrong in (beyond, swapped, of_other_pixels):
        with pytest.raises(UserError, match="other images"):
            load_pixels(folder, wrong)
