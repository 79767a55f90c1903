from typing import Any

import granary
import granary.torch
import pytest
import torch
from made import content
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader


def decode(sample: dict[str, Any]) -> torch.Tensor:
    return torch.frombuffer(bytearray(sample["bin"][:8]), dtype=torch.uint8)


def decode_all(samples: list[dict[str, Any]]) -> torch.Tensor:
    return torch.stack([decode(sample) for sample in samples])


def expected(number: int) -> torch.Tensor:
    return torch.frombuffer(bytearray(content(number)[:8]), dtype=torch.uint8)


def keys_of(samples: list[dict[str, Any]]) -> list[str]:
    return [sample["__key__"] for sample in samples]


@pytest.mark.parametrize("workers, method", [(0, None), (2, "fork"), (2, "spawn")])
def test_by_number_with_a_sampler_of_torch(folder, workers, method):
    data = granary.torch.MapDataset(str(folder), decode)
    assert len(data) == 1000 and torch.equal(data[7], expected(7))
    loader = DataLoader(data, batch_size=50, shuffle=False, num_workers=workers, multiprocessing_context=method)
    batches = list(loader)
    assert len(batches) == 20
    assert all(torch.equal(row, expected(number)) for number, row in enumerate(torch.cat(batches)))


def test_torch_collates_plain_samples(folder):
    batch = next(iter(DataLoader(granary.torch.MapDataset(str(folder)), batch_size=3)))
    assert batch == {
        "__key__": ["000000", "000001", "000002"],
        "bin": [content(0), content(1), content(2)],
        "cls": [b"0", b"1", b"2"],
    }


@pytest.mark.parametrize("workers, method", [(0, None), (1, "fork"), (3, "fork"), (2, "spawn")])
def test_batches_in_the_same_order_with_any_number_of_workers(folder, workers, method):
    plain = [batch.keys() for batch in granary.Loader(folder, 30, seed=4)]
    data = granary.torch.IterableDataset(str(folder), 30, keys_of, seed=4)
    loader = DataLoader(data, batch_size=None, num_workers=workers, multiprocessing_context=method)
    assert len(loader) == len(plain)
    assert list(loader) == plain


def test_tensors_of_batches(folder):
    data = granary.torch.IterableDataset(str(folder), 100, decode_all)
    rows = torch.cat(list(DataLoader(data, batch_size=None, num_workers=2)))
    assert sorted(map(bytes, rows.numpy())) == sorted(content(number)[:8] for number in range(1000))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_goes_on(folder, workers):
    def loader() -> StatefulDataLoader:
        data = granary.torch.IterableDataset(str(folder), 20, keys_of, seed=6)
        return StatefulDataLoader(data, batch_size=None, num_workers=workers)

    whole = list(loader())
    first = loader()
    batches = iter(first)
    given = [next(batches) for _ in range(21)]
    state = first.state_dict()
    del batches
    second = loader()
    second.load_state_dict(state)
    assert given + list(second) == whole


def test_epochs_follow_or_are_set(folder):
    data = granary.torch.IterableDataset(str(folder), 50, keys_of, seed=4)
    plain = granary.Loader(folder, 50, seed=4)
    epochs = [[batch.keys() for batch in plain] for _ in range(2)]
    loader = DataLoader(data, batch_size=None)
    assert [list(loader), list(loader)] == epochs
    for workers in (0, 2):
        loader = DataLoader(data, batch_size=None, num_workers=workers)
        for epoch in (1, 0):
            data.set_epoch(epoch)
            assert list(loader) == epochs[epoch]


def test_tensors_have_no_copy_of_what_is_lent(folder):
    view = granary.Dataset(folder)[3]["bin"]
    one, two = torch.from_dlpack(view), torch.from_dlpack(view)
    assert one.dtype == torch.uint8 and bytes(one.tolist()) == content(3)
    assert one.data_ptr() == two.data_ptr()
    joined, starts = map(torch.from_dlpack, next(iter(granary.Loader(folder, 10))).joined("bin"))
    assert joined.dtype == torch.uint8 and starts.dtype == torch.int64 and int(starts[-1]) == len(joined)
    joined += 1
    address = joined.data_ptr()
    del view
    assert bytes(one.tolist()) == content(3) and joined.data_ptr() == address
