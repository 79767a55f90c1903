"""Feeds shards of training data to programs: shuffled, resumable, fast, without worker processes.

    import granary

    data = granary.Dataset("/data/birds")               # or s3://bucket/birds
    sample = data[17]                                   # {"__key__": "0017", "jpg": View, "cls": View}

    for batch in granary.Loader(data, batch_size=256):
        for sample in batch:
            image = decode(sample["jpg"])

    for batch in granary.Loader(data, batch_size=256, decode="auto"):
        for sample in batch:
            image = numpy.asarray(sample["jpg"])        # height x width x channels

A sample is a ``dict``: ``__key__``, and each of its files by extension. A file is a `View`: read-only bytes that are lent,
not copied; or, decoded, an `Array`. ``granary.torch``, ``granary.grain`` and ``granary.tf`` fit this to their frameworks; none of them is
imported by ``import granary``.
"""

from collections.abc import Sequence as _Sequence

from granary._granary import Array, Batch, View, __version__, index_tars, pack
from granary.dataset import Dataset
from granary.decode import Audio, Image
from granary.errors import (
    AccessError,
    BugError,
    BusyError,
    CorruptError,
    ExistsError,
    GranaryError,
    InterruptedCallError,
    InvalidError,
    IoError,
    NoSpaceError,
    NotFoundError,
    StaleError,
    UnavailableError,
    UnsupportedError,
)
from granary.loader import Loader

__all__ = [
    "AccessError",
    "Array",
    "Audio",
    "Batch",
    "BugError",
    "BusyError",
    "CorruptError",
    "Dataset",
    "ExistsError",
    "GranaryError",
    "Image",
    "InterruptedCallError",
    "InvalidError",
    "IoError",
    "Loader",
    "NoSpaceError",
    "NotFoundError",
    "StaleError",
    "UnavailableError",
    "UnsupportedError",
    "View",
    "__version__",
    "index_tars",
    "pack",
]

_Sequence.register(Batch)
