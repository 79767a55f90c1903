"""Shards as other programs see and write them, for tools.rs. What was read is printed as JSON, bytes in hexadecimal digits."""

import io
import json
import os
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


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
