"""One system's rate, in a process of its own: ``systems.py NAME FOLDER --seconds S`` prints one line of JSON.

A consumer takes each sample's key and bytes and adds up their lengths. The first epoch is not timed: it opens files and
starts workers. Then whole epochs are, until the time is over. Order is shuffled by each system's own means.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

BATCH = 256
Epoch = Callable[[], tuple[int, int]]


def granary_loader(at: Path, **options) -> Epoch:
    import granary

    loader = granary.Loader(str(at), BATCH, tail="uneven", **options)

    def epoch() -> tuple[int, int]:
        samples = size = 0
        for batch in loader:
            for sample in batch:
                samples += 1
                size += len(sample["png"])
                sample["__key__"]
        return samples, size

    return epoch


def granary_owned(at: Path) -> Epoch:
    """The same with a copy of each file as ``bytes``."""
    import granary

    loader = granary.Loader(str(at), BATCH, tail="uneven")

    def epoch() -> tuple[int, int]:
        samples = size = 0
        for batch in loader:
            for sample in batch:
                samples += 1
                size += len(bytes(sample["png"]))
                sample["__key__"]
        return samples, size

    return epoch


def granary_read_many(at: Path) -> Epoch:
    import granary

    data = granary.Dataset(str(at))
    order = list(range(len(data)))

    def epoch() -> tuple[int, int]:
        random.shuffle(order)
        samples = size = 0
        for start in range(0, len(order), BATCH):
            for sample in data.read_many(order[start : start + BATCH]):
                samples += 1
                size += len(sample["png"])
                sample["__key__"]
        return samples, size

    return epoch


def webdataset(at: Path, workers: int) -> Epoch:
    import webdataset as wds

    shards = [str(path) for path in sorted(at.glob("*.tar"))]
    # With one shard a worker reads nothing, or all of it: each worker needs its own.
    split = wds.split_by_worker if workers else None
    data = wds.WebDataset(shards, shardshuffle=len(shards), workersplitter=split or wds.shardlists.single_node_only)
    data = data.shuffle(1000).to_tuple("__key__", "png")
    if workers:
        data = wds.WebLoader(data.batched(BATCH), batch_size=None, num_workers=workers, persistent_workers=True)
    else:
        data = data.batched(BATCH)

    def epoch() -> tuple[int, int]:
        samples = size = 0
        for keys, contents in data:
            for _, content in zip(keys, contents):
                samples += 1
                size += len(content)
        return samples, size

    return epoch


def _torch(data, workers: int) -> Epoch:
    if workers:
        from torch.utils.data import DataLoader

        loader = DataLoader(data, batch_size=BATCH, num_workers=workers, persistent_workers=True, collate_fn=list)

        def batched() -> tuple[int, int]:
            samples = size = 0
            for batch in loader:
                for sample in batch:
                    samples += 1
                    size += len(sample["png"])
                    sample["key"]
            return samples, size

        return batched

    def epoch() -> tuple[int, int]:
        samples = size = 0
        for sample in data:
            samples += 1
            size += len(sample["png"])
            sample["key"]
        return samples, size

    return epoch


def mds(at: Path, workers: int) -> Epoch:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    return _torch(StreamingDataset(local=str(at), shuffle=True, batch_size=BATCH), workers)


def litdata(at: Path, workers: int) -> Epoch:
    from litdata import StreamingDataset

    return _torch(StreamingDataset(str(at), shuffle=True), workers)


def raw(at: Path) -> Epoch:
    files = [str(path) for path in at.rglob("*.png")]

    def epoch() -> tuple[int, int]:
        random.shuffle(files)
        samples = size = 0
        for path in files:
            with open(path, "rb") as file:
                size += len(file.read())
            samples += 1
        return samples, size

    return epoch


def granary_decode(at: Path, threads: int) -> Epoch:
    import granary
    import numpy as np

    # One file of openclipart-png has 105 million pixels. Pillow only warns of so many.
    image = granary.Image(mode="rgb8", pixels_max=2 * 89_478_485)
    loader = granary.Loader(str(at), BATCH, tail="uneven", decode={"png": image}, threads=threads)

    def epoch() -> tuple[int, int]:
        samples = size = 0
        for batch in loader:
            for sample in batch:
                samples += 1
                size += np.asarray(sample["png"]).nbytes
        return samples, size

    return epoch


class Pictures:
    """Files of a folder, decoded one by one, for torch's DataLoader."""

    def __init__(self, at: Path, decode: Callable[[str], object]) -> None:
        self.files = sorted(str(path) for path in at.rglob("*.png"))
        self.decode = decode

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, at: int) -> object:
        return self.decode(self.files[at])


def _pillow(path: str):
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _torchvision(path: str):
    from torchvision.io import ImageReadMode, decode_image

    return decode_image(path, ImageReadMode.RGB)


def data_loader(at: Path, decode: Callable[[str], object], workers: int) -> Epoch:
    import torch
    from torch.utils.data import DataLoader

    if workers == 0:
        torch.set_num_threads(1)
    options = {"num_workers": workers, "persistent_workers": True} if workers else {}
    loader = DataLoader(Pictures(at, decode), batch_size=BATCH, shuffle=True, collate_fn=list, **options)

    def epoch() -> tuple[int, int]:
        samples = size = 0
        for batch in loader:
            for image in batch:
                samples += 1
                size += image.nbytes
        return samples, size

    return epoch


def webdataset_decode(at: Path, workers: int) -> Epoch:
    import webdataset as wds

    shards = [str(path) for path in sorted(at.glob("*.tar"))]
    split = wds.split_by_worker if workers else None
    data = wds.WebDataset(shards, shardshuffle=len(shards), workersplitter=split or wds.shardlists.single_node_only)
    data = data.shuffle(1000).decode("rgb8").to_tuple("png").batched(BATCH, collation_fn=list)
    if workers:
        data = wds.WebLoader(data, batch_size=None, num_workers=workers, persistent_workers=True)

    def epoch() -> tuple[int, int]:
        samples = size = 0
        for batch in data:
            for (image,) in batch:
                samples += 1
                size += image.nbytes
        return samples, size

    return epoch


# What it is called in the table: its layout, and how it is opened.
SYSTEMS: dict[str, tuple[str, Callable[[Path], Epoch]]] = {
    "Granary Loader": ("granary", granary_loader),
    "Granary Loader, bytes() of each": ("granary", granary_owned),
    "Granary read_many": ("granary", granary_read_many),
    "webdataset, 0 workers": ("tar", lambda at: webdataset(at, 0)),
    "webdataset, 1 worker": ("tar", lambda at: webdataset(at, 1)),
    "webdataset, 2 workers": ("tar", lambda at: webdataset(at, 2)),
    "MDS, 0 workers": ("mds", lambda at: mds(at, 0)),
    "MDS, 1 worker": ("mds", lambda at: mds(at, 1)),
    "MDS, 2 workers": ("mds", lambda at: mds(at, 2)),
    "LitData, in process": ("litdata", lambda at: litdata(at, 0)),
    "raw files": ("raw", raw),
}

# The same, of those that decode each file to red, green and blue.
DECODERS: dict[str, tuple[str, Callable[[Path], Epoch]]] = {
    "Granary Loader": ("granary", lambda at: granary_decode(at, 2)),
    "Granary Loader, 1 thread": ("granary", lambda at: granary_decode(at, 1)),
    "Pillow in a DataLoader, 0 workers": ("raw", lambda at: data_loader(at, _pillow, 0)),
    "Pillow in a DataLoader, 1 worker": ("raw", lambda at: data_loader(at, _pillow, 1)),
    "Pillow in a DataLoader, 2 workers": ("raw", lambda at: data_loader(at, _pillow, 2)),
    "torchvision in a DataLoader, 0 workers": ("raw", lambda at: data_loader(at, _torchvision, 0)),
    "torchvision in a DataLoader, 2 workers": ("raw", lambda at: data_loader(at, _torchvision, 2)),
    "webdataset, 0 workers": ("tar", lambda at: webdataset_decode(at, 0)),
    "webdataset, 2 workers": ("tar", lambda at: webdataset_decode(at, 2)),
}


def measure(name: str, at: Path, seconds: float, decodes: bool) -> dict[str, float]:
    epoch = (DECODERS if decodes else SYSTEMS)[name][1](at)
    expected = epoch()
    start = time.perf_counter()
    samples = size = 0
    while (spent := time.perf_counter() - start) < seconds:
        got = epoch()
        samples, size = samples + got[0], size + got[1]
    return {"samples": samples, "bytes": size, "seconds": spent, "epoch_samples": expected[0], "epoch_bytes": expected[1]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--decode", action="store_true")
    asked = parser.parse_args()
    result = json.dumps(measure(asked.name, asked.folder, asked.seconds, asked.decode))
    sys.stdout.write(f"\n{result}\n")
    sys.stdout.flush()
    os._exit(0)  # peers' threads and workers are ended with the process, not waited for
