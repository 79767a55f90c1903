"""What the extension has. `granary` names what of it is for users."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, overload

__version__: str

class View:
    """A file's bytes, read only, lent and not copied: anything that takes bytes-like objects takes it."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> View | bytes: ...
    def __iter__(self) -> Iterator[int]: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __bytes__(self) -> bytes: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...
    def tobytes(self) -> bytes:
        """A copy as `bytes`."""

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The text in it, as `bytes.decode` does."""

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """For ``torch.from_dlpack`` and its like: ``uint8``, read only, not copied. Who knows only DLPack before version 1, which cannot say that,
        is given a copy."""

    def __dlpack_device__(self) -> tuple[int, int]: ...

class Array:
    """Numbers with a shape that may be written, not copied by ``numpy.asarray``, ``memoryview`` and ``torch.from_dlpack``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of its dimensions."""

    @property
    def dtype(self) -> str:
        """What its numbers are, as numpy calls it."""

    @property
    def sample_rate(self) -> int | None:
        """Frames a second, of sound."""

    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class Batch(Sequence[dict[str, Any]]):
    """What one step is given: a sequence of samples, made when they are looked at."""

    @property
    def epoch(self) -> int:
        """The epoch it is of."""

    @property
    def number(self) -> int:
        """Its number in the epoch, from 0: the step."""

    @property
    def padding(self) -> int:
        """So many samples at its end were given before, to fill it."""

    @property
    def skipped(self) -> int:
        """Samples that could not be read and are missing here."""

    @property
    def substituted(self) -> int:
        """Samples that stand in for some that could not be read."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __iter__(self) -> Iterator[dict[str, Any]]: ...
    def keys(self) -> list[str]:
        """The samples' keys."""

    def numbers(self) -> list[int]:
        """The samples' numbers in their data set."""

    def sources(self) -> list[int]:
        """Which of the loader's data sets each sample is of."""

    def column(self, extension: str) -> list[View | Array]:
        """The files of one extension, without a dictionary for each sample.

        Raises:
            KeyError: a sample has none.
        """

    def stacked(self, extension: str) -> Array:
        """The files of one extension as one array with a row for each sample: bytes of one length as ``uint8``, arrays of one shape as they are.
        One copy, by Rust.

        Raises:
            KeyError: a sample has none. ValueError: one has another length, shape, type or rate.
        """

    def joined(self, extension: str) -> tuple[Array, Array]:
        """The files of one extension one after the other, and as ``int64`` where each begins and last where the last one ends: bytes as ``uint8``,
        arrays along their first dimension. One copy, by Rust.

        Raises:
            KeyError: a sample has none. ValueError: the other dimensions of an array are not the first's.
        """

class Source:
    def __init__(
        self,
        url: str,
        *,
        version: int | None = None,
        files: list[str] | None = None,
        having: list[str] | None = None,
        select: list[int] | None = None,
        lengths: str | None = None,
        index_dir: str | None = None,
        threads: int | None = None,
        decode: str | None = None,
    ) -> None: ...
    @property
    def version(self) -> int: ...
    def __len__(self) -> int: ...
    def get(self, at: int | str) -> Any: ...
    def read_many(self, indices: list[int]) -> list[dict[str, Any]]: ...
    def metrics(self) -> str: ...

class Core:
    def __init__(
        self,
        sources: list[Source],
        *,
        batch_size: int,
        seed: int,
        rank: int,
        ranks: int,
        worker: int,
        workers: int,
        shuffle: str,
        bucket_batches: int,
        tail: str,
        weights: list[float] | None,
        epoch_samples: int | None,
        on_error: str,
        overtake: int,
        memory_bytes: int | None,
        decode: str | None,
        decoded_bytes: int | None,
        cache_dir: str | None,
        cache_bytes: int | None,
        threads: int | None,
    ) -> None: ...
    @property
    def epoch(self) -> int: ...
    @property
    def epoch_batches(self) -> int: ...
    def next(self) -> Batch | None: ...
    def set_epoch(self, epoch: int) -> None: ...
    def state(self) -> str: ...
    def load_state(self, state: str) -> None: ...
    def progress(self) -> str: ...
    def metrics(self) -> str: ...

def array_of(bytes: bytes, dtype: str, shape: list[int], sample_rate: int | None) -> Array:
    """What was pickled of an array."""

def index_tars(
    url: str | os.PathLike[str],
    tars: Iterable[str] | None = None,
    *,
    group: Literal["stem", "directory"] = "stem",
    skip_errors: bool = False,
    threads: int | None = None,
) -> dict[str, Any]:
    """Makes a data set of tars that are there, without rewriting them, as ``granary index`` does.

    Args:
        url: the folder or ``s3://bucket/prefix`` that has them.
        tars: which, relative to it; all when left out.
        group: files of one stem are a sample (WebDataset's rule), or files of one directory.
        skip_errors: leave out what is damaged, and tell of it in the report's ``messages``.

    Returns:
        A report: ``version``, ``changed``, ``shards``, ``files``, ``samples``, ``bytes``, ``skipped``, ``messages``.
    """

def pack(
    source: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    containers: Literal["tar", "tfrecord", "tfrecord-raw", "mds"] | None = None,
    mode: Literal["new", "append", "replace"] = "new",
    shard_bytes: int = 268435456,
    seed: int | None = None,
    group: Literal["stem", "directory"] | None = None,
    verify: bool = False,
    skip_errors: bool = False,
    threads: int | None = None,
    memory_bytes: int = 536870912,
) -> dict[str, Any]:
    """Packs files into shards and makes a version of them, as ``granary pack`` does. Run again after a kill, it goes on.

    Args:
        source: a folder or ``s3://bucket/prefix``; with ``containers``, records in files of that kind.
        to: a folder, which is made, or ``s3://bucket/prefix``.
        mode: ``"append"`` adds files that are not there, ``"replace"`` those that changed too, as the next version.
        seed: shuffles samples when given.
        group: what makes files a sample; as the data set has it, or by stem, when left out.
        verify: read back every byte before the version is made.
        skip_errors: leave out what cannot be packed, and tell of it in ``messages``.

    Returns:
        A report: ``version``, ``shards``, ``files``, ``samples``, ``bytes``, ``unchanged``, ``replaced``, ``skipped``, ``verified``, ``messages``.
    """
