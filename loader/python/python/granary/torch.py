"""For PyTorch: data sets for ``torch.utils.data.DataLoader``.

    data = granary.torch.IterableDataset("/data/birds", batch_size=256, transform=decode)
    loader = torch.utils.data.DataLoader(data, batch_size=None)

With ``decode`` a file is a tensor: ``IterableDataset("/data/birds", batch_size=256, decode={"jpg": "rgb8"})``.

Batches come made up, so the loader's own ``batch_size`` is `None`. Workers are not needed to read, which threads of
Granary do; take them when ``transform`` is Python that takes long. The order is the same with any number of them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils.data

from granary._granary import Array
from granary.dataset import Dataset, Sample
from granary.loader import Loader

__all__ = ["IterableDataset", "MapDataset"]


def owned(sample: Sample) -> Sample:
    """The sample as torch sends and collates it: ``bytes``, not views, and tensors, which are not copied."""
    return {name: _owned(value) for name, value in sample.items()}


def _owned(value: Any) -> Any:
    if isinstance(value, Array):
        return torch.from_dlpack(value)
    return value if isinstance(value, str) else bytes(value)


class MapDataset(torch.utils.data.Dataset[Any]):
    """Samples by number, for samplers and ``batch_size`` of torch's own. ``transform`` is given each sample."""

    def __init__(self, data: Dataset | str, transform: Callable[[Sample], Any] | None = None, **options: Any) -> None:
        self.data = data if isinstance(data, Dataset) else Dataset(data, **options)
        self.transform = owned if transform is None else transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, at: int) -> Any:
        return self.transform(self.data[at])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self.transform(sample) for sample in self.data.read_many(indices)]


class IterableDataset(torch.utils.data.IterableDataset[Any]):
    """A `granary.Loader` for ``DataLoader(..., batch_size=None)`` and torchdata's ``StatefulDataLoader``.

    Takes what `granary.Loader` takes. ``transform`` is given each batch as a list of samples. With ``num_workers`` each worker
    has every so manieth batch, and torch puts them in order again; such workers end with the epoch, so call `set_epoch`
    before each.
    """

    def __init__(
        self,
        data: Dataset | str,
        batch_size: int,
        transform: Callable[[list[Sample]], Any] | None = None,
        **options: Any,
    ) -> None:
        self.data = data if isinstance(data, Dataset) else Dataset(data)
        self.transform = transform
        self._options = {"batch_size": batch_size, **options}
        self._loader: Loader | None = None
        self._worker = (0, 1)
        self._state: dict[str, Any] | None = None

    def loader(self) -> Loader:
        """This process's loader; a worker's goes on where the data set stood in the process that made the worker."""
        info = torch.utils.data.get_worker_info()
        worker = (0, 1) if info is None else (info.id, info.num_workers)
        if self._loader is None or self._worker != worker:
            state = self._state if self._loader is None else self._loader.state_dict()
            self._loader = Loader(self.data, **self._options, worker=worker[0], workers=worker[1])
            self._worker = worker
            if state is not None:
                self._loader.load_state_dict(state)
        return self._loader

    def __len__(self) -> int:
        return len(self.loader())

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader():
            samples = list(batch)
            yield [owned(sample) for sample in samples] if self.transform is None else self.transform(samples)

    def set_epoch(self, epoch: int) -> None:
        self.loader().set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        return self.loader().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state
        if self._loader is not None:
            self._loader.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        state = self.state_dict() if self._loader is not None else self._state
        return {**self.__dict__, "_loader": None, "_state": state}
