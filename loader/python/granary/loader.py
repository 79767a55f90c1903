"""Batches in the order of training."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from granary import _fork, _granary
from granary._granary import Batch
from granary._ranks import ranks
from granary.dataset import Dataset
from granary.errors import InvalidError


class Loader:
    """An iterator of batches. A ``for`` over it gives (the rest of) one epoch; the next ``for`` gives the next epoch.

    Which samples a *global batch* has follows from the data set's version, ``seed`` and epoch alone, not from the number of
    ranks: each rank has its part of it. So a run goes on from a `state_dict` with any number of ranks, and
    gets the batches that would have come. Threads fetch and verify ahead of the program, bounded by ``memory_bytes``.

    Args:
        data: a `Dataset`, where one is, or several of them to be mixed.
        batch_size: samples of a global batch, over all ranks.
        seed: decides the order, with the epoch.
        rank, world_size: of this process; left out, ``RANK`` and ``WORLD_SIZE`` say it, or it is alone.
        shuffle: ``"window"`` mixes many runs of neighbours, with long requests; ``"full"`` takes any sample at any time;
            ``"shards"`` shuffles shards; ``"none"`` keeps the data set's order. `True` and `False`: the first and the last.
        tail: samples that do not fill the last batch: ``"pad"`` repeats some, ``"drop"`` leaves them out, ``"uneven"`` gives less.
        weights: of several data sets, how much of each.
        files: extensions that are wanted; others are not fetched.
        on_error: a sample that cannot be read: ``"raise"``, ``"skip"`` or ``"substitute"`` another; `progress` tells how many.
        overtake: so many batches may be given before one that waits for a slow request; 0 keeps the order.
        memory_bytes: what may be held ahead of the program.
        cache_dir, cache_bytes, verify: as of `Dataset`, when ``data`` says where it is.
        threads: that fetch and verify.
    """

    def __init__(
        self,
        data: Dataset | str | os.PathLike[str] | Sequence[Dataset | str | os.PathLike[str]],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        shuffle: str | bool = "window",
        tail: str = "pad",
        weights: Sequence[float] | None = None,
        files: Sequence[str] | None = None,
        on_error: str = "raise",
        overtake: int = 0,
        memory_bytes: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
        verify: bool = True,
        threads: int | None = None,
    ) -> None:
        several = data if isinstance(data, (list, tuple)) else [data]
        kept = {"verify": verify, "cache_dir": cache_dir, "cache_bytes": cache_bytes}
        self._data = [one if isinstance(one, Dataset) else Dataset(one, **kept) for one in several]
        self._rank, self._world_size = ranks(rank, world_size)
        if isinstance(shuffle, bool):
            shuffle = "window" if shuffle else "none"
        self._options: dict[str, Any] = {
            "batch_size": batch_size,
            "seed": seed,
            "rank": self._rank,
            "ranks": self._world_size,
            "shuffle": shuffle,
            "tail": tail,
            "weights": None if weights is None else list(weights),
            "files": None if files is None else list(files),
            "on_error": on_error,
            "overtake": overtake,
            "memory_bytes": memory_bytes,
            "threads": threads,
        }
        self._generation = _fork.generation()
        self._core: _granary.Core | None = None
        self._state: str | None = None
        self._opened()

    def _opened(self) -> "_granary.Core":
        if self._generation != _fork._generation:
            _fork.leave_behind(self._core)
            raise InvalidError(
                "this Loader was opened before its process was forked, and its threads stayed behind: make it in the "
                "child, from a Dataset or where that is (granary.torch.IterableDataset does so)"
            )
        if self._core is None:
            self._core = _granary.Core([one._source() for one in self._data], **self._options)
            if self._state is not None:
                self._core.load_state(self._state)
        return self._core

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world_size

    @property
    def epoch(self) -> int:
        """The epoch that the next batch is of."""
        return self._opened().epoch

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self._opened().batches_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        core = self._opened()
        epoch = core.epoch
        while core.epoch == epoch:
            batch = self._opened().next()
            if batch is None:
                return
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Goes to the start of an epoch. Unneeded when epochs follow one another."""
        self._opened().set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where this run stands, after the batches that it was given: less than a kilobyte of plain values, for JSON or pickle.
        The same on every rank."""
        return json.loads(self._opened().state())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where another run stood, with any number of ranks.

        Raises:
            StaleError: the state is of another data set, version, seed or way to shuffle.
        """
        self._opened().load_state(json.dumps(state))

    def progress(self) -> dict[str, Any]:
        """Numbers for a log: where it stands, what was given, and how long the program waited (``data_wait_seconds``)."""
        return json.loads(self._opened().progress())

    def metrics(self) -> str:
        """The same and more in Prometheus' text format."""
        return self._opened().metrics()

    def __getstate__(self) -> dict[str, Any]:
        return {"data": self._data, "options": self._options, "state": self._opened().state()}

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        self._data, self._options, self._state = pickled["data"], pickled["options"], pickled["state"]
        self._rank, self._world_size = self._options["rank"], self._options["ranks"]
        self._generation, self._core = _fork.generation(), None

    def __repr__(self) -> str:
        return f"granary.Loader({self._data!r}, {self._options['batch_size']}, rank {self._rank} of {self._world_size})"
