"""For grain: a source of records by number.

A `granary.Dataset` has what ``grain.MapDataset.source`` and ``grain.DataLoader`` ask for already. `DataSource` gives samples with
``bytes`` in place of views and numpy's arrays in place of decoded ones, so that grain may send them to other processes as they are.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from granary._granary import Array
from granary.dataset import Dataset

__all__ = ["DataSource"]


class DataSource:
    """Samples by number. ``transform`` is applied to each, in grain's workers."""

    def __init__(self, data: Dataset | str, transform: Callable[[dict[str, Any]], Any] | None = None, **options: Any) -> None:
        self.data = data if isinstance(data, Dataset) else Dataset(data, **options)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, at: int) -> Any:
        sample = self.data[int(at)]
        return owned(sample) if self.transform is None else self.transform(sample)

    def __repr__(self) -> str:
        return f"granary.grain.DataSource({self.data!r})"


def owned(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample with ``bytes`` of its own; arrays are numpy's."""
    return {name: _owned(value) for name, value in sample.items()}


def _owned(value: Any) -> Any:
    if isinstance(value, Array):
        return np.asarray(value)
    return value if isinstance(value, str) else bytes(value)
