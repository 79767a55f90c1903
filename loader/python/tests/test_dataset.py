import pickle
import threading

import granary
import numpy as np
import pytest
from made import content, write_tars


def test_samples_by_number(data):
    assert len(data) == 1000 and data.version == 1
    for number in (0, 1, 142, 143, 999):
        assert data[number] == {"__key__": f"{number:06d}", "bin": content(number), "cls": str(number % 10).encode()}
    assert data[-1]["__key__"] == "000999"
    assert data[np.int64(5)]["__key__"] == "000005"
    assert type(data[0]) is dict


def test_what_is_not_there(data):
    for bad in (1000, -1001):
        with pytest.raises(IndexError, match="1000 samples"):
            data[bad]
    with pytest.raises(IndexError):
        data.read_many([0, 1000])
    with pytest.raises(TypeError):
        data[1.5]
    with pytest.raises(FileNotFoundError, match="nothing.bin"):
        data["nothing.bin"]


def test_files_by_path(data):
    assert data["000700.bin"] == content(700)
    assert isinstance(data["000700.cls"], granary.View)


def test_many_at_once_in_the_order_asked_for(data):
    numbers = np.random.default_rng(1).permutation(1000)
    assert data.read_many(numbers) == data.read_many(numbers.tolist())
    numbers = numbers.tolist()
    samples = data.read_many(numbers)
    assert [sample["__key__"] for sample in samples] == [f"{number:06d}" for number in numbers]
    assert all(sample["bin"] == content(number) for sample, number in zip(samples, numbers))
    assert data.read_many([]) == [] and data.read_many([-1])[0]["__key__"] == "000999"
    assert [sample["__key__"] for sample in data[10:16:2]] == ["000010", "000012", "000014"]


def test_all_in_order(data):
    assert [sample["__key__"] for sample in data] == [f"{number:06d}" for number in range(1000)]


def test_threads_share_it(data):
    wrong: list[int] = []

    def read(start: int) -> None:
        for number in range(start, 1000, 4):
            if data[number]["bin"] != content(number):
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_only_some_files_and_some_samples(folder):
    assert set(granary.Dataset(folder, files=["cls"])[5]) == {"__key__", "cls"}
    some = granary.Dataset(folder, select=[5, 17, 900])
    assert len(some) == 3 and [sample["__key__"] for sample in some] == ["000005", "000017", "000900"]
    assert len(granary.Dataset(folder, having=["bin", "cls"])) == 1000
    assert len(granary.Dataset(folder, having=["jpg"])) == 0


def test_a_copy_by_pickle_has_the_same_version(tmp_path):
    write_tars(tmp_path, samples=10, shards=1)
    granary.index_tars(tmp_path)
    data = granary.Dataset(str(tmp_path))
    copy = pickle.dumps(data)
    write_tars(tmp_path / "more", samples=20, shards=1)
    (tmp_path / "more/0000.tar").rename(tmp_path / "9999.tar")
    report = granary.index_tars(tmp_path)
    assert report["version"] == 2 and report["samples"] == 30
    assert pickle.loads(copy).version == 1 and len(pickle.loads(copy)) == 10 and repr(pickle.loads(copy)) == repr(data)
    assert len(granary.Dataset(tmp_path)) == 30 and len(granary.Dataset(tmp_path, version=1)) == 10
    with pytest.raises(granary.NotFoundError):
        granary.Dataset(tmp_path, version=3)


def test_no_data_set_says_how_to_make_one(tmp_path):
    with pytest.raises(granary.GranaryError, match="granary pack") as raised:
        granary.Dataset(tmp_path)
    assert isinstance(raised.value, FileNotFoundError) and raised.value.kind == "NotFound"
    with pytest.raises(FileNotFoundError):
        granary.Dataset(tmp_path / "absent")


def test_names_that_are_no_text_come_as_python_has_them(tmp_path):
    import io
    import os
    import tarfile

    name = os.fsdecode(b"caf\xe9.txt")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        member.size = 2
        tar.addfile(member, io.BytesIO(b"hi"))
    granary.index_tars(tmp_path)
    data = granary.Dataset(tmp_path)
    assert data[0]["__key__"] == os.fsdecode(b"caf\xe9") and data[name] == b"hi"
