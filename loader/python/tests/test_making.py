"""Data sets made from Python: tars adopted, files packed."""

import os

import granary
import pytest
from made import content, write_tars


def test_tars_are_adopted_as_they_are(tmp_path):
    write_tars(tmp_path, samples=50, shards=2)
    before = (tmp_path / "0000.tar").read_bytes()
    report = granary.index_tars(tmp_path)
    assert (report["version"], report["shards"], report["samples"], report["files"]) == (1, 2, 50, 100)
    assert granary.index_tars(tmp_path)["changed"] is False
    assert (tmp_path / "0000.tar").read_bytes() == before
    assert granary.Dataset(tmp_path)[49]["bin"] == content(49)


def test_a_cut_tar_is_named_or_left_out(tmp_path):
    write_tars(tmp_path, samples=50, shards=2)
    os.truncate(tmp_path / "0001.tar", 2000)
    with pytest.raises(granary.CorruptError, match=r"0001\.tar"):
        granary.index_tars(tmp_path)
    report = granary.index_tars(tmp_path, skip_errors=True)
    assert report["skipped"] >= 1 and "0001.tar" in report["messages"][0] and report["samples"] < 50
    with pytest.raises(granary.InvalidError, match="group by"):
        granary.index_tars(tmp_path, group="colour")


@pytest.fixture
def files(tmp_path):
    source = tmp_path / "files"
    (source / "sub").mkdir(parents=True)
    for number in range(60):
        (source / "sub" / f"{number:03d}.bin").write_bytes(content(number))
        (source / "sub" / f"{number:03d}.cls").write_text(str(number % 10))
    return source


def test_files_are_packed_and_more_are_added(tmp_path, files):
    to = tmp_path / "set"
    report = granary.pack(files, to, shard_bytes=65536, verify=True)
    assert (report["version"], report["samples"], report["files"], report["verified"]) == (1, 60, 120, True)
    assert report["shards"] > 1
    data = granary.Dataset(to)
    assert [sample["__key__"] for sample in data] == [f"sub/{number:03d}" for number in range(60)]
    assert data["sub/017.bin"] == content(17)
    (files / "new.bin").write_bytes(b"new")
    report = granary.pack(files, to, mode="append")
    assert (report["version"], report["files"], report["unchanged"]) == (2, 1, 120)
    assert granary.Dataset(to)[60] == {"__key__": "new", "bin": b"new"} and len(data) == 60


def test_a_seed_decides_the_order_packed(tmp_path, files):
    orders = []
    for number, seed in enumerate([1, 1, 2]):
        granary.pack(files, tmp_path / str(number), seed=seed)
        orders.append([sample["__key__"] for sample in granary.Dataset(tmp_path / str(number))])
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2])


def test_records_of_tars_are_packed(tmp_path):
    write_tars(tmp_path / "tars", samples=50, shards=2)
    granary.pack(tmp_path / "tars", tmp_path / "set", containers="tar")
    data = granary.Dataset(tmp_path / "set")
    assert len(data) == 50 and sum(sample["bin"] == content(int(sample["__key__"][-6:])) for sample in data) == 50


def test_what_cannot_be_packed(tmp_path, files):
    with pytest.raises(granary.InvalidError, match="lies within"):
        granary.pack(files, files / "set")
    with pytest.raises(granary.InvalidError, match="no mode"):
        granary.pack(files, tmp_path / "set", mode="merge")
    with pytest.raises(granary.InvalidError, match="64 KiB"):
        granary.pack(files, tmp_path / "set", shard_bytes=1)
    with pytest.raises(FileNotFoundError):
        granary.pack(tmp_path / "absent", tmp_path / "set")
