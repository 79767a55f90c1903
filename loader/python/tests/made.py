"""What tests make: samples that are known by their numbers, and tars of them."""

import io
import os
import random
import struct
import tarfile
import zlib
from pathlib import Path


def content(number: int) -> bytes:
    """What sample `number`'s `bin` file has: its length and bytes are of the number alone."""
    return random.Random(number).randbytes(100 + number * 37 % 900)


def write_tars(at: Path, samples: int, shards: int, contents=content) -> None:
    at.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(at / f"{shard:04d}.tar", "w") as tar:
            for number in range(shard * samples // shards, (shard + 1) * samples // shards):
                for extension, payload in (("bin", contents(number)), ("cls", str(number % 10).encode())):
                    member = tarfile.TarInfo(f"{number:06d}.{extension}")
                    member.size = len(payload)
                    tar.addfile(member, io.BytesIO(payload))


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def png(pixels) -> bytes:
    """Height x width x channels of ``uint8`` or ``uint16``, by the format's own rules (rows unfiltered)."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
