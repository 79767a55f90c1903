import json
import pickle
import re

import granary
import pytest
from made import content, resident_bytes, write_tars


def keys(loader: granary.Loader) -> list[str]:
    return [sample["__key__"] for batch in loader for sample in batch]


ALL = [f"{number:06d}" for number in range(1000)]


def test_an_epoch_has_every_sample_once_and_the_next_another_order(data):
    loader = granary.Loader(data, 32, seed=3, tail="uneven")
    first, second = keys(loader), keys(loader)
    assert sorted(first) == sorted(second) == ALL
    assert first != second and first != ALL
    assert loader.epoch == 2 and len(loader) == 32
    assert keys(granary.Loader(data, 32, seed=3, tail="uneven")) == first
    assert keys(granary.Loader(data, 32, seed=4, tail="uneven")) != first


def test_what_a_batch_is(data):
    batch = next(iter(granary.Loader(data, 16)))
    assert (batch.epoch, batch.number, batch.padding, len(batch)) == (0, 0, 0, 16)
    samples = list(batch)
    assert samples == [batch[at] for at in range(16)] and batch[-1] == samples[-1]
    assert batch.keys() == [sample["__key__"] for sample in samples]
    assert batch.column("bin") == [sample["bin"] for sample in samples]
    assert batch.numbers() == [int(key) for key in batch.keys()]
    assert all(sample["bin"] == content(int(sample["__key__"])) for sample in samples)
    with pytest.raises(IndexError):
        batch[16]
    with pytest.raises(KeyError, match="jpg"):
        batch.column("jpg")


@pytest.mark.parametrize("shuffle", ["none", "shards", "window", "full", True, False])
def test_every_way_to_shuffle_is_whole(data, shuffle):
    got = keys(granary.Loader(data, 50, shuffle=shuffle))
    assert sorted(got) == ALL and (got == ALL) == (shuffle in ("none", False))


def test_tails(data):
    padded = list(granary.Loader(data, 300, tail="pad"))
    assert [len(batch) for batch in padded] == [300] * 4 and padded[-1].padding == 200
    assert [len(batch) for batch in granary.Loader(data, 300, tail="drop")] == [300] * 3
    assert [len(batch) for batch in granary.Loader(data, 300, tail="uneven")] == [300] * 3 + [100]


def global_batches(folder, world_size: int, state=None) -> list[list[str]]:
    loaders = [granary.Loader(folder, 24, seed=5, rank=rank, world_size=world_size) for rank in range(world_size)]
    if state is not None:
        for loader in loaders:
            loader.load_state_dict(state)
    return [sum((batch.keys() for batch in parts), []) for parts in zip(*loaders, strict=True)]


def test_global_batches_are_the_same_on_any_number_of_ranks(folder):
    alone = global_batches(folder, 1)
    assert all(global_batches(folder, ranks) == alone for ranks in (2, 3, 8))


def test_a_run_goes_on_with_other_ranks_where_it_stood(folder):
    alone = global_batches(folder, 1)
    loaders = [granary.Loader(folder, 24, seed=5, rank=rank, world_size=4) for rank in range(4)]
    for loader in loaders:
        batches = iter(loader)
        for _ in range(17):
            next(batches)
    states = [loader.state_dict() for loader in loaders]
    assert all(state == states[0] for state in states)
    text = json.dumps(states[0])
    assert len(text) < 1024
    for ranks in (1, 2, 3, 6):
        assert global_batches(folder, ranks, json.loads(text)) == alone[17:]


def test_a_state_taken_while_batches_wait_counts_only_those_given(data):
    whole = [batch.keys() for batch in granary.Loader(data, 10, seed=9)]
    for stop in (0, 1, 50, 99, 100):
        loader = granary.Loader(data, 10, seed=9)
        batches = iter(loader)
        given = [next(batches).keys() for _ in range(stop)]
        other = granary.Loader(data, 10, seed=9)
        other.load_state_dict(loader.state_dict())
        assert other.state_dict() == loader.state_dict()
        rest = [batch.keys() for batch in other]
        if stop < 100:
            assert given + rest == whole
        else:
            # The epoch was given whole; its end was not told yet.
            assert given == whole and rest == [] and other.epoch == 1


def test_a_pickled_loader_goes_on(data):
    loader = granary.Loader(data, 10, seed=9)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    copy = pickle.loads(pickle.dumps(loader))
    assert [batch.keys() for batch in copy] == [batch.keys() for batch in batches]


def test_a_state_of_something_else_is_refused(data, tmp_path):
    state = granary.Loader(data, 10, seed=9).state_dict()
    with pytest.raises(granary.InvalidError, match="seed"):
        granary.Loader(data, 10, seed=8).load_state_dict(state)
    write_tars(tmp_path, samples=999, shards=3)
    granary.index_tars(tmp_path)
    with pytest.raises(granary.GranaryError, match="data"):
        granary.Loader(tmp_path, 10, seed=9).load_state_dict(state)
    with pytest.raises(granary.InvalidError):
        granary.Loader(data, 10, seed=9).load_state_dict({"hello": 1})


def test_epochs_are_chosen(data):
    loader = granary.Loader(data, 100, seed=1)
    epochs = [keys(loader) for _ in range(3)]
    loader.set_epoch(1)
    assert keys(loader) == epochs[1] and loader.epoch == 2
    batches = iter(loader)
    next(batches)
    loader.set_epoch(0)
    assert keys(loader) == epochs[0]


def test_ranks_come_from_the_environment(data, monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "5")
    loader = granary.Loader(data, 50)
    assert (loader.rank, loader.world_size) == (2, 5)
    assert (granary.Loader(data, 50, rank=0, world_size=1).world_size) == 1
    monkeypatch.setenv("RANK", "5")
    with pytest.raises(ValueError, match="rank 5 of 5"):
        granary.Loader(data, 50)
    monkeypatch.delenv("RANK")
    with pytest.raises(granary.InvalidError, match="only one of RANK and WORLD_SIZE"):
        granary.Loader(data, 50)
    with pytest.raises(granary.InvalidError, match="go together"):
        granary.Loader(data, 50, rank=1)


def test_data_sets_are_mixed_by_weight(data, tmp_path):
    write_tars(tmp_path, samples=500, shards=2)
    granary.index_tars(tmp_path)
    loader = granary.Loader([data, tmp_path], 40, weights=[3, 1], epoch_samples=1200)
    sources = [source for batch in loader for source in batch.sources()]
    assert sources.count(0) == 900 and sources.count(1) == 300


def test_arguments_that_cannot_be_meant(data):
    for wrong in ({"shuffle": "wild"}, {"tail": "cut"}, {"on_error": "ignore"}, {"overtake": 1000}, {"memory_bytes": 1}):
        with pytest.raises(granary.InvalidError):
            granary.Loader(data, 10, **wrong)
    with pytest.raises(granary.InvalidError, match="batch"):
        granary.Loader(data, 0)
    with pytest.raises(TypeError):
        granary.Loader(data, "ten")


def test_progress_and_metrics(data):
    loader = granary.Loader(data, 100)
    for _ in loader:
        pass
    progress = loader.progress()
    assert progress["samples"] == 1000 and progress["batches"] == 10 and progress["data_wait_seconds"] >= 0
    assert progress["bytes"] == sum(len(content(number)) + 1 for number in range(1000))
    metrics = loader.metrics()
    assert re.search(r"^granary_loader_samples_total 1000$", metrics, re.MULTILINE)
    assert "# TYPE granary_loader_data_wait_seconds_total counter" in metrics


@pytest.fixture
def damaged(tmp_path):
    """1,000 samples, of which number 123 has a flipped byte."""
    write_tars(tmp_path, samples=1000, shards=7)
    granary.index_tars(tmp_path)
    tar = tmp_path / "0000.tar"
    content_at = tar.read_bytes().index(content(123))
    with open(tar, "r+b") as file:
        file.seek(content_at + 5)
        byte = file.read(1)
        file.seek(content_at + 5)
        file.write(bytes([byte[0] ^ 1]))
    return tmp_path


def test_a_flipped_byte_is_an_error_that_names_the_file(damaged):
    data = granary.Dataset(damaged)
    for read in (lambda: data[123], lambda: data.read_many(range(1000)), lambda: keys(granary.Loader(data, 10))):
        with pytest.raises(granary.CorruptError, match=r"0000\.tar.*000123\.bin") as raised:
            read()
        assert isinstance(raised.value, OSError) and raised.value.errno == 5
    assert data[122]["bin"] == content(122)


def test_a_bad_sample_is_skipped_and_counted(damaged):
    loader = granary.Loader(damaged, 10, on_error="skip")
    got = keys(loader)
    assert sorted(got) == [key for key in ALL if key != "000123"]
    progress = loader.progress()
    assert progress["skipped"] == 1 and "000123.bin" in progress["messages"][0]


def test_a_bad_sample_is_substituted_and_counted(damaged):
    loader = granary.Loader(damaged, 10, on_error="substitute")
    batches = [batch.keys() for batch in loader]
    assert [len(batch) for batch in batches] == [10] * 100
    assert set(sum(batches, [])) == set(ALL) - {"000123"}
    assert loader.progress()["substituted"] == 1


def test_an_iteration_goes_on_after_an_error(damaged):
    loader = granary.Loader(damaged, 10, shuffle="none")
    batches = []
    with pytest.raises(granary.CorruptError):
        for batch in loader:
            batches.append(batch)
    assert len(batches) == 12 and loader.state_dict()["batch"] == 12


def test_memory_is_flat(tmp_path):
    write_tars(tmp_path, samples=2000, shards=4, contents=lambda number: content(number) * 20)
    granary.index_tars(tmp_path)
    loader = granary.Loader(tmp_path, 64, memory_bytes=1 << 20)

    def epochs(count: int) -> None:
        for _ in range(count):
            for batch in loader:
                for sample in batch:
                    len(sample["bin"])

    epochs(3)
    before = resident_bytes()
    epochs(20)
    # 20 epochs are 400 MB; what the interpreter and threads' heaps take in passing is not.
    assert resident_bytes() - before < 16 << 20


def test_batches_of_like_length_are_of_each_sample_once_and_resumed(data, folder):
    options = {"batch_size": 20, "seed": 4, "tail": "uneven", "bucket_batches": 10, "lengths": "bin"}
    loader = granary.Loader(folder, **options)
    batches = list(loader)
    numbers = [number for batch in batches for number in batch.numbers()]
    assert sorted(numbers) == list(range(1000))

    def spread(batches) -> float:
        lengths = [[len(view) for view in batch.column("bin")] for batch in batches]
        return sum(max(of) - min(of) for of in lengths) / len(lengths)

    plain = list(granary.Loader(folder, 20, seed=4, tail="uneven"))
    assert spread(batches) < spread(plain) / 3
    # Any number of ranks goes on with the same batches.
    first = granary.Loader(folder, **options)
    given = iter(first)
    for _ in range(7):
        next(given)
    parts = [granary.Loader(folder, **options, rank=rank, world_size=2) for rank in range(2)]
    for part in parts:
        part.load_state_dict(first.state_dict())
    for batch, *halves in zip(batches[7:], *parts, strict=True):
        assert [number for half in halves for number in half.numbers()] == batch.numbers()
    with pytest.raises(granary.InvalidError, match="it is of other data|shuffled"):
        granary.Loader(folder, 20, seed=4).load_state_dict(first.state_dict())
    with pytest.raises(granary.InvalidError, match="lengths = the extension"):
        granary.Loader(data, 20, bucket_batches=10)
