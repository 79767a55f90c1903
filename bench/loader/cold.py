"""Over a bucket with nothing on the node: Granary's loader, raw GETs of the same shards, raw small files.

The store is the one that ``AWS_ENDPOINT_URL`` names, with ``granary-bench proxy`` before it: 30 ms to the first byte of each answer.
Raw GETs are those of ``obstore`` (the client is in Rust, as Granary's is): the shards in ranges of 15 MiB, 32 at once, and each
file as an object of its own, 32 at once as well.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import data
from report import Rounds

RANGE_BYTES = 15 << 20
AT_ONCE = 32
FIRST_BYTE_MS = 30
# Data are there several times over, so that a round is much longer than its start and its end; small files are a part of them.
COPIES = 12
SMALL_FILES = 4000


@contextmanager
def slow(proxy: str, store: str) -> Iterator[str]:
    """The address of a proxy before ``store``."""
    delay = ["--first-byte-ms", str(FIRST_BYTE_MS), "--stall-percent", "0"]
    running = subprocess.Popen([proxy, "proxy", "--to", store, *delay], stdout=subprocess.PIPE, text=True)
    try:
        yield running.stdout.readline().strip()
    finally:
        running.terminate()
        running.wait()


def bucket(endpoint: str):
    from obstore.store import S3Store

    return S3Store(
        os.environ["GRANARY_BENCH_BUCKET"],
        endpoint=endpoint,
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ.get("AWS_REGION", "us-east-1"),
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


async def side_by_side(jobs: list, at_once: int = AT_ONCE) -> int:
    """Sum of what the jobs give."""
    waiting = iter(jobs)

    async def worker() -> int:
        return sum([await job() for job in waiting])

    return sum(await asyncio.gather(*(worker() for _ in range(at_once))))


def upload(asked: argparse.Namespace, files: list[bytes]) -> int:
    """Shards and small files into the bucket; the shards' bytes."""
    store = bucket(os.environ["AWS_ENDPOINT_URL"])
    many = files * COPIES
    problem = data.lay_out("granary", many, asked.work / "cold")
    if problem:
        raise RuntimeError(problem)
    size = 0
    for path in sorted((asked.work / "cold").rglob("*")):
        if path.is_file():
            store.put(f"shards/{path.relative_to(asked.work / 'cold')}", path)
            size += path.stat().st_size if path.suffix == ".tar" else 0

    def put(number: int):
        async def job() -> int:
            await store.put_async(f"small/{data.key(number)}.png", files[number])
            return 1

        return job

    asyncio.run(side_by_side([put(number) for number in range(min(SMALL_FILES, len(files)))]))
    return size


def raw_shards(endpoint: str) -> tuple[int, float]:
    store = bucket(endpoint)

    def get(path: str, start: int, length: int):
        async def job() -> int:
            return len(await store.get_range_async(path, start=start, length=length))

        return job

    start = time.perf_counter()
    shards = [entry for page in store.list("shards/") for entry in page if entry["path"].endswith(".tar")]
    jobs = [
        get(entry["path"], at, min(RANGE_BYTES, entry["size"] - at))
        for entry in shards
        for at in range(0, entry["size"], RANGE_BYTES)
    ]
    random.shuffle(jobs)
    size = asyncio.run(side_by_side(jobs))
    return size, time.perf_counter() - start


def raw_small(endpoint: str) -> tuple[int, float]:
    store = bucket(endpoint)

    def get(path: str):
        async def job() -> int:
            return len(await (await store.get_async(path)).bytes_async())

        return job

    paths = [entry["path"] for page in store.list("small/") for entry in page]
    random.shuffle(paths)
    start = time.perf_counter()
    size = asyncio.run(side_by_side([get(path) for path in paths]))
    return size, time.perf_counter() - start


def loader(endpoint: str) -> tuple[int, float]:
    """From nothing: it fetches manifest and indexes too."""
    import granary

    os.environ["AWS_ENDPOINT_URL"] = endpoint
    start = time.perf_counter()
    size = 0
    for batch in granary.Loader(f"s3://{os.environ['GRANARY_BENCH_BUCKET']}/shards", 256, tail="uneven"):
        for sample in batch:
            size += len(sample["png"])
    return size, time.perf_counter() - start


SYSTEMS = {"Granary Loader": loader, "raw GETs of the shards": raw_shards, "raw GETs of small files": raw_small}


def measure(asked: argparse.Namespace, files: list[bytes], notes: list[str]) -> Rounds:
    """MB/s of each, in turn, each in a process of its own."""
    size = upload(asked, files)
    notes.append(
        f"cold: {size / 1e6:,.0f} MB in shards of 64 MiB ({COPIES} times the files); {min(SMALL_FILES, len(files)):,} small files; "
        f"{AT_ONCE} requests at once for raw GETs; a process of its own each time, its start not counted"
    )
    rounds: Rounds = {}
    with slow(asked.proxy, os.environ["AWS_ENDPOINT_URL"]) as endpoint:
        for number in range(asked.rounds):
            names = list(SYSTEMS)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                command = [sys.executable, str(Path(__file__)), name, endpoint]
                done = subprocess.run(command, capture_output=True, text=True, timeout=300)
                try:
                    got, seconds = map(float, done.stdout.split())
                except ValueError:
                    raise RuntimeError(f"{name}: {done.stderr.strip()[-2000:]}") from None
                rounds.setdefault(name, []).append(got / seconds / 1e6)
                print(f"round {number + 1}: {name}: {rounds[name][-1]:,.0f} MB/s", file=sys.stderr, flush=True)
    return rounds


if __name__ == "__main__":
    print(*SYSTEMS[sys.argv[1]](sys.argv[2]), flush=True)
    os._exit(0)
