"""The same files, laid out as each system wants them."""

import io
import random
import shutil
import tarfile
from pathlib import Path

SHARD_BYTES = 64 << 20


def sources(folder: Path | None, count: int, seed: int) -> list[bytes]:
    """PNG files below ``folder`` in the order of their names; made up, of sizes as such files have, without one."""
    if folder is not None:
        return [path.read_bytes() for path in sorted(folder.rglob("*.png")) if path.is_file() and not path.is_symlink()]
    rng = random.Random(seed)
    return [rng.randbytes(min(int(rng.lognormvariate(9.0, 1.3)), 1 << 20)) for _ in range(count)]


def key(number: int) -> str:
    return f"{number:08d}"


def raw(files: list[bytes], at: Path) -> None:
    for number, content in enumerate(files):
        folder = at / f"{number // 1000:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{key(number)}.png").write_bytes(content)


def tars(files: list[bytes], at: Path) -> None:
    """As webdataset's writer lays them out."""
    at.mkdir(parents=True)
    tar, room = None, 0
    for number, content in enumerate(files):
        if tar is None or room < len(content):
            if tar is not None:
                tar.close()
            tar = tarfile.open(at / f"{len(list(at.iterdir())):06d}.tar", "w", format=tarfile.USTAR_FORMAT)
            room = SHARD_BYTES
        member = tarfile.TarInfo(f"{key(number)}.png")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
        room -= len(content) + 1024
    if tar is not None:
        tar.close()


def granary(files: list[bytes], at: Path) -> None:
    import granary as package

    tars(files, at)
    package.index_tars(str(at))


def mds(files: list[bytes], at: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(at), columns={"key": "str", "png": "bytes"}, size_limit=SHARD_BYTES) as writer:
        for number, content in enumerate(files):
            writer.write({"key": key(number), "png": content})


def litdata(files: list[bytes], at: Path) -> None:
    from litdata.streaming.writer import BinaryWriter

    at.mkdir(parents=True)
    writer = BinaryWriter(str(at), chunk_bytes=SHARD_BYTES)
    for number, content in enumerate(files):
        writer.add_item(number, {"key": key(number), "png": content})
    writer.done()
    writer.merge(1)


LAYOUTS = {"raw": raw, "tar": tars, "granary": granary, "mds": mds, "litdata": litdata}


def lay_out(name: str, files: list[bytes], at: Path) -> str | None:
    """Makes one layout; what went wrong, if something did: a system that cannot be had is left out, and told of."""
    shutil.rmtree(at, ignore_errors=True)
    try:
        LAYOUTS[name](files, at)
    except Exception as e:  # a peer's, whatever it is
        return f"{type(e).__name__}: {e}"
    return None


def summary(files: list[bytes]) -> dict[str, int]:
    return {"samples": len(files), "bytes": sum(map(len, files))}
