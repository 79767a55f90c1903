"""For TensorFlow: a ``tf.data.Dataset`` of a loader's batches."""

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from granary._granary import Array, View
from granary.errors import InvalidError
from granary.loader import Loader

__all__ = ["dataset"]


def dataset(loader: Loader, files: Sequence[str]) -> tf.data.Dataset:
    """One epoch of ``loader`` for each pass: a dictionary of string tensors, ``__key__`` and each of ``files``, of a batch's length.

    TensorFlow copies what it is given into tensors. Its own shuffling, interleaving and prefetching are not needed. Files come as they are: of a
    loader with ``decode``, only those that it does not decode.
    """
    names = ["__key__", *files]

    def batches() -> Iterator[dict[str, list[Any]]]:
        for batch in loader:
            columns: dict[str, list[Any]] = {"__key__": batch.keys()}
            for name in files:
                columns[name] = [_string(name, file) for file in batch.column(name)]
            yield columns

    signature = {name: tf.TensorSpec(shape=(None,), dtype=tf.string, name=name) for name in names}
    return tf.data.Dataset.from_generator(batches, output_signature=signature)


def _string(name: str, file: View | Array) -> bytes:
    if isinstance(file, Array):
        raise InvalidError(f".{name} is decoded, and a string tensor would lose its shape: leave it out of decode")
    return bytes(file)
