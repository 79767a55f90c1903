"""A data set, by number and by path."""

import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from granary import _fork, _granary
from granary._granary import Array, View
from granary.decode import Decode, _json

Sample = dict[str, Any]


class Dataset:
    """One version of a data set: a folder or ``s3://bucket/prefix`` that ``granary pack`` or `index_tars` made.

    ``granary://NAMESPACE/folder`` is one that the granary node of this machine reads: a folder of a namespace that is mounted here, or,
    with the namespace alone, the packed data set that it shows. All processes of the machine share the node's cache, and read its files
    without a copy. ``GRANARY_SOCKET`` says where the node listens, if that is not ``/run/granary/node.sock``.

    Samples are numbered from 0 in the order of the shards. Endpoint, region and keys of a bucket come from the environment
    and the files that other S3 tools read (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...).

    Safe to share among threads; a forked or spawned process opens its own at first use.

    Args:
        url: where it is.
        version: which one; the latest when left out. It is found once: a copy in another process has the same.
        files: extensions that are wanted; other files are neither given nor fetched.
        having: extensions that a sample must have to take part.
        select: numbers of the samples that take part; they are numbered anew, in this order's ascending one.
        lengths: the extension of the file whose length is a sample's, for a `Loader` with ``bucket_batches``; all indexes are read for it.
        index_dir: a folder on this machine that keeps a bucket's indexes; several processes may share it.
        decode: which files are decoded: ``"auto"``, or extensions and to what, as ``{"jpg": "rgb8"}``; see `granary.decode`.
        threads: that read and decode at once; one a processor when left out.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        version: int | None = None,
        *,
        files: Sequence[str] | None = None,
        having: Sequence[str] | None = None,
        select: Iterable[int] | None = None,
        lengths: str | None = None,
        index_dir: str | os.PathLike[str] | None = None,
        decode: Decode | None = None,
        threads: int | None = None,
    ) -> None:
        self._options: dict[str, Any] = {
            "url": os.fspath(url),
            "version": version,
            "files": None if files is None else list(files),
            "having": None if having is None else list(having),
            "select": None if select is None else list(map(operator.index, select)),
            "lengths": lengths,
            "index_dir": None if index_dir is None else os.fspath(index_dir),
            "decode": _json(decode),
            "threads": threads,
        }
        self._open()

    def _open(self) -> "_granary.Source":
        self._generation = _fork.generation()
        self._opened = _granary.Source(**self._options)
        self._options["version"] = self._opened.version
        return self._opened

    def _source(self) -> "_granary.Source":
        if self._generation == _fork._generation:
            return self._opened
        _fork.leave_behind(self._opened)
        return self._open()

    @property
    def url(self) -> str:
        return str(self._options["url"])

    @property
    def version(self) -> int:
        return int(self._options["version"])

    def __len__(self) -> int:
        return len(self._source())

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: str) -> View | Array: ...
    @overload
    def __getitem__(self, at: slice) -> list[Sample]: ...
    def __getitem__(self, at: int | str | slice) -> Sample | View | Array | list[Sample]:
        """A sample by its number, a file by its path, or several samples by a slice.

        Raises:
            IndexError: there is no such number. NotFoundError: there is no such path.
            CorruptError: the bytes do not match their checksum, or cannot be decoded.
        """
        if isinstance(at, slice):
            return self.read_many(range(*at.indices(len(self))))
        found: Sample | View | Array = self._source().get(at)
        return found

    def __iter__(self) -> Iterator[Sample]:
        """All samples in order, read some at a time."""
        for start in range(0, len(self), 64):
            yield from self.read_many(range(start, min(start + 64, len(self))))

    def read_many(self, indices: Iterable[int]) -> list[Sample]:
        """Samples by number, in the order asked for, read side by side."""
        return self._source().read_many(indices if isinstance(indices, list) else list(map(operator.index, indices)))

    # What torch's DataLoader asks for, if it is there, instead of one sample after the other.
    __getitems__ = read_many

    def __getstate__(self) -> dict[str, Any]:
        return self._options

    def __setstate__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._open()

    def __repr__(self) -> str:
        # Stable across processes and runs: grain compares it when a run goes on.
        return f"granary.Dataset({self.url!r}, version={self.version})"
