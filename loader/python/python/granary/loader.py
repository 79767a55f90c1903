"""Batches in the order of training."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from granary import _fork, _granary
from granary._granary import Batch
from granary._ranks import ranks
from granary.dataset import Dataset
from granary.decode import Decode, _json


class Loader:
    """An iterator of batches. A ``for`` over it gives (the rest of) one epoch; the next ``for`` gives the next epoch.

    Which samples a *global batch* has follows from the data set's version, ``seed`` and epoch alone, not from the number of
    ranks: each rank has its part of it. So a run goes on from a `state_dict` with any number of ranks, and
    gets the batches that would have come. Threads fetch and verify ahead of the program, bounded by ``memory_bytes``.

    Args:
        data: a `Dataset`, where one is, or several of them to be mixed.
        batch_size: samples of a **global** batch: of all ranks together.
        seed: decides the order, with the epoch.
        rank, world_size: of this process; left out, ``RANK`` and ``WORLD_SIZE`` say it, or it is alone.
        shuffle: ``"window"`` mixes many runs of neighbours, with long requests; ``"full"`` takes any sample at any time;
            ``"shards"`` shuffles shards; ``"none"`` keeps the data set's order. `True` and `False`: the first and the last.
        bucket_batches: samples are moved among so many batches in a row, so that those of a batch are of like length; 64 do for most. The
            data set is opened with ``lengths``. 0: they are not.
        tail: samples that do not fill the last batch: ``"pad"`` repeats some, ``"drop"`` leaves them out, ``"uneven"`` gives less.
        weights: of several data sets, how often each comes, relative to the others; their numbers of samples when left out.
        epoch_samples: of all ranks together; all samples when left out.
        on_error: a sample that cannot be read or decoded: ``"raise"``, ``"skip"`` or ``"substitute"`` another; `progress` tells how many.
        overtake: so many batches may be given before one that waits for a slow request; 0 keeps the order.
        memory_bytes: what may be held ahead of the program, fetched and not given.
        decode: which files the threads decode: ``"auto"``, or extensions and to what, as ``{"jpg": "rgb8"}``; see `granary.decode`. Left out:
            as the data sets were opened.
        decoded_bytes: what may be held ahead of the program, decoded and not given; 1 GiB when left out.
        cache_dir, cache_bytes: a folder on this machine for what comes from a bucket, and how large it may become;
            processes share it.
        threads: that fetch and verify, and as many that decode; one a processor when left out.
        worker, workers: of a program with worker processes of its own: this one gives every so manieth batch.
        options: of `Dataset`, when ``data`` says where it is.
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
        bucket_batches: int = 0,
        tail: str = "pad",
        weights: Sequence[float] | None = None,
        epoch_samples: int | None = None,
        on_error: str = "raise",
        overtake: int = 0,
        memory_bytes: int | None = None,
        decode: Decode | None = None,
        decoded_bytes: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
        threads: int | None = None,
        worker: int = 0,
        workers: int = 1,
        **options: Any,
    ) -> None:
        several = [data] if isinstance(data, (Dataset, str, os.PathLike)) else list(data)
        self._data = [one if isinstance(one, Dataset) else Dataset(one, **options) for one in several]
        if options and all(isinstance(one, Dataset) for one in several):
            raise TypeError(f"{', '.join(options)}: of a Dataset; this one is open, so give them where it is opened")
        self._rank, self._world_size = ranks(rank, world_size)
        if isinstance(shuffle, bool):
            shuffle = "window" if shuffle else "none"
        self._options: dict[str, Any] = {
            "batch_size": batch_size,
            "seed": seed,
            "rank": self._rank,
            "ranks": self._world_size,
            "shuffle": shuffle,
            "bucket_batches": bucket_batches,
            "tail": tail,
            "weights": None if weights is None else list(weights),
            "epoch_samples": epoch_samples,
            "on_error": on_error,
            "overtake": overtake,
            "memory_bytes": memory_bytes,
            "decode": _json(decode),
            "decoded_bytes": decoded_bytes,
            "cache_dir": None if cache_dir is None else os.fspath(cache_dir),
            "cache_bytes": cache_bytes,
            "threads": threads,
            "worker": worker,
            "workers": workers,
        }
        self._state: str | None = None
        self._open()

    def _open(self) -> "_granary.Core":
        self._generation = _fork.generation()
        self._opened = _granary.Core([one._source() for one in self._data], **self._options)
        if self._state is not None:
            self._opened.load_state(self._state)
        return self._opened

    def _core(self) -> "_granary.Core":
        if self._generation == _fork._generation:
            return self._opened
        # The child goes on where its parent was, with threads of its own.
        self._state = self._opened.state()
        _fork.leave_behind(self._opened)
        return self._open()

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world_size

    @property
    def epoch(self) -> int:
        """The epoch that the next batch is of."""
        return self._core().epoch

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self._core().epoch_batches

    def __iter__(self) -> Iterator[Batch]:
        while (batch := self._core().next()) is not None:
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Goes to the start of an epoch. Unneeded when epochs follow one another."""
        self._core().set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where this run stands, after the batches that it was given: less than a kilobyte of plain values, for JSON or pickle.
        The same on every rank."""
        state: dict[str, Any] = json.loads(self._core().state())
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where another run stood, with any number of ranks.

        Raises:
            InvalidError: the state is of another data set, version, seed or way to shuffle.
        """
        self._core().load_state(json.dumps(state))

    def progress(self) -> dict[str, Any]:
        """Numbers for a log: where it stands (``epoch``, ``batch`` of ``epoch_batches``), what was given since it was made, how long the
        program waited (``data_wait_seconds``) and threads decoded (``decode_seconds``), what part of the data is on this machine (``readiness``), what could not be read
        (``skipped``, ``substituted``, the first ``messages``)."""
        progress: dict[str, Any] = json.loads(self._core().progress())
        return progress

    def metrics(self) -> str:
        """The same and more in Prometheus' text format."""
        return self._core().metrics()

    def __getstate__(self) -> dict[str, Any]:
        return {"data": self._data, "options": self._options, "state": self._core().state()}

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        self._data, self._options, self._state = pickled["data"], pickled["options"], pickled["state"]
        self._rank, self._world_size = self._options["rank"], self._options["ranks"]
        self._open()

    def __repr__(self) -> str:
        return f"granary.Loader({self._data!r}, {self._options['batch_size']}, rank {self._rank} of {self._world_size})"
