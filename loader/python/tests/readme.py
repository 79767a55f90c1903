"""The blocks of README.md, and the data sets that they name."""

import io
import json
import re
import struct
import tarfile
import wave
from pathlib import Path

import granary

PACKAGE = Path(__file__).parent.parent
JPEGS = [PACKAGE.parent / "tests/media" / f"{name}.jpg" for name in ("baseline", "fine", "wide", "progressive")]


def blocks(kind: str) -> list[tuple[int, str]]:
    """Line and text of each block that begins with this."""
    text = (PACKAGE / "README.md").read_text()
    found = re.finditer(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: match.start(1)].count("\n"), match.group(1)) for match in found]


def run(kind: str, namespace: dict[str, object]) -> int:
    """All blocks, one after the other; how many."""
    for line, block in blocks(kind):
        # Lines of errors are README's.
        exec(compile("\n" * line + block, PACKAGE / "README.md", "exec"), namespace)
    return len(blocks(kind))


def sound(frames: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(2 * frames))
    return out.getvalue()


def tars(at: Path) -> None:
    at.mkdir()
    for shard in range(2):
        with tarfile.open(at / f"{shard}.tar", "w") as tar:
            for number in range(shard * 80, shard * 80 + 80):
                files = {"cls": b"%d" % (number % 3), "jpg": JPEGS[number % 4].read_bytes(), "wav": sound(16000 + number)}
                for extension, payload in files.items():
                    member = tarfile.TarInfo(f"{number:06d}.{extension}")
                    member.size = len(payload)
                    tar.addfile(member, io.BytesIO(payload))


def mds(at: Path) -> None:
    """Ten samples of two columns, as MosaicML's writer lays them out."""
    at.mkdir()
    names, encodings = ["image", "label"], ["jpeg", "str"]
    head = {
        "version": 2,
        "format": "mds",
        "column_names": names,
        "column_encodings": encodings,
        "column_sizes": [None, None],
        "compression": None,
        "hashes": [],
        "size_limit": 1 << 26,
    }
    config = json.dumps(head, sort_keys=True).encode()
    samples = []
    for number in range(10):
        values = [JPEGS[number % 4].read_bytes(), b"bird %d" % number]
        samples.append(struct.pack("<II", *map(len, values)) + b"".join(values))
    offsets = [4 + 4 * (len(samples) + 1) + len(config)]
    for sample in samples:
        offsets.append(offsets[-1] + len(sample))
    shard = struct.pack(f"<I{len(offsets)}I", len(samples), *offsets) + config + b"".join(samples)
    (at / "shard.00000.mds").write_bytes(shard)
    raw = {"basename": "shard.00000.mds", "bytes": len(shard), "hashes": {}}
    index = {"version": 2, "shards": [{**head, "raw_data": raw, "samples": len(samples), "zip_data": None}]}
    (at / "index.json").write_text(json.dumps(index))


def lay_out(at: Path) -> None:
    for name in ("birds", "cats", "wds"):
        tars(at / name)
    for name in ("birds", "cats"):
        granary.index_tars(at / name)
    mds(at / "mds")
    for kind in ("owl", "wren"):
        folder = at / "photos" / kind
        folder.mkdir(parents=True)
        for number in range(20):
            (folder / f"{number}.jpg").write_bytes(JPEGS[number % 4].read_bytes())
