"""Shards and containers as other programs see and write them. What was read is printed as JSON, bytes in hexadecimal digits."""

import io
import json
import os
import struct
import sys
import tarfile


def read_tarfile(mode, path):
    """Every member: name, type flag, mode, mtime, link's target, bytes."""
    members = []
    with open(path, "rb") as raw, tarfile.open(fileobj=raw, mode=mode) as tar:
        for member in tar:
            content = tar.extractfile(member).read() if member.isreg() else b""
            name = os.fsencode(member.name).hex()
            kind = "0" if member.isreg() else member.type.decode()
            target = os.fsencode(member.linkname).hex()
            members.append([name, kind, member.mode, int(member.mtime), target, content.hex()])
    return members


def read_webdataset(*paths):
    """Every sample: key, and the bytes of each extension."""
    import webdataset

    samples = []
    for sample in webdataset.WebDataset(list(paths), shardshuffle=False, empty_check=False):
        files = {name: value.hex() for name, value in sample.items() if not name.startswith("__")}
        samples.append([sample["__key__"], files])
    return samples


def read_huggingface(home, *paths):
    """The same by `load_dataset("webdataset")`."""
    os.environ.update(HF_HOME=home, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    import datasets

    rows = datasets.load_dataset(
        "webdataset", data_files={"train": list(paths)}, split="train", cache_dir=home, streaming=True
    )
    samples = []
    for row in rows:
        files = {name: value.hex() for name, value in row.items() if not name.startswith("__")}
        samples.append([row["__key__"], files])
    return samples


FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def write_tarfile(form, path, names):
    """A tar of files that hold their own names."""
    with tarfile.open(path, "w", format=FORMATS[form]) as tar:
        for name in json.loads(names):
            member = tarfile.TarInfo(name)
            content = name.encode()
            member.size, member.mode, member.mtime = len(content), 0o600, 1_234_567_890.75
            tar.addfile(member, io.BytesIO(content))


def write_webdataset(path, keys):
    """A shard of samples with two files, which hold their own names."""
    import webdataset

    with webdataset.TarWriter(path) as shard:
        for key in json.loads(keys):
            shard.write({"__key__": key, "bin": f"{key}.bin".encode(), "txt": f"{key}.txt"})


def read_energon(tar, index):
    """Every sample by Megatron Energon's index: the names and bytes of its regular members, which are read from there alone."""
    data = open(tar, "rb").read()
    raw = open(index, "rb").read()
    assert len(raw) % 8 == 0
    offsets = [number for (number,) in struct.iter_unpack("<Q", raw)]
    samples = []
    for start, end in zip(offsets, offsets[1:]):
        with tarfile.open(fileobj=io.BytesIO(data[start:end]), mode="r:") as part:
            files = [(member.name, part.extractfile(member).read().hex()) for member in part if member.isfile()]
        samples.append(files)
    return samples


def read_dali(tar, index):
    """Every sample by DALI's index: extension, name and bytes of each component."""
    data = open(tar, "rb").read()
    first, *lines = open(index).read().splitlines()
    version, count = first.split()
    assert version == "v1.2" and int(count) == len(lines)
    samples = []
    for line in lines:
        words = iter(line.split())
        components = zip(words, words, words, words)
        samples.append([[ext, name, data[int(at) : int(at) + int(size)].hex()] for ext, at, size, name in components])
    return samples


def write_lmdb(path, pairs, *options):
    """A data file of LMDB; `pairs` names a file of keys and values, each in hexadecimal digits, a transaction for each."""
    import lmdb

    with lmdb.open(path, map_size=1 << 28, max_dbs=2, subdir="file" not in options, sync=False) as env:
        with open(pairs) as file:
            for key, value in json.load(file):
                with env.begin(write=True) as txn:
                    txn.put(bytes.fromhex(key), bytes.fromhex(value))
        if "named" in options:
            env.open_db(b"inner")
        env.sync(True)


def hold_lmdb(path):
    """Keeps a data file open, until standard input ends."""
    import lmdb

    with lmdb.open(path, map_size=1 << 28):
        print("open", flush=True)
        sys.stdin.read()


def write_parquet(path, compression, rows, group_rows):
    """Images as Hugging Face has them, a text, a number and a list, of so many rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, group_rows = int(rows), int(group_rows)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": b"\xff\xd8\xff" + bytes([n % 251]) * (n * 37 % 3000), "path": f"{n}.JPEG"} for n in range(rows)]
    table = pa.table(
        {
            "image": pa.array(images, image),
            "caption": pa.array([None if n % 10 == 9 else f"caption {n}" for n in range(rows)], pa.string()),
            "name": pa.array([f"class-{n % 3}/{n:05}" for n in range(rows)], pa.string()),
            "label": pa.array(range(rows), pa.int64()),
            "tags": pa.array([["a", "b"]] * rows, pa.list_(pa.string())),
        }
    )
    pq.write_table(table, path, compression=compression, row_group_size=group_rows, data_page_size=4096)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
