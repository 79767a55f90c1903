"""Packs one tree by several programs in interleaved rounds, and prints medians as a Markdown table."""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ARGUMENTS = argparse.ArgumentParser(description=__doc__)
ARGUMENTS.add_argument("--granary", required=True)
ARGUMENTS.add_argument("--work", required=True, type=Path)
ARGUMENTS.add_argument("--files", type=int)
ARGUMENTS.add_argument("--bytes", type=int, default=10 << 10)
ARGUMENTS.add_argument("--rounds", type=int)
ARGUMENTS.add_argument("--threads", type=int, default=os.cpu_count())
ARGUMENTS.add_argument("--quick", action="store_true", help="whether all of it works: few files, two rounds; no figures to publish")

# webdataset's own way to write shards, a file a sample: one process, as its writer is.
WEBDATASET = """
import os, sys, webdataset
source, to = sys.argv[1:]
with webdataset.ShardWriter(os.path.join(to, "%06d.tar"), maxcount=1 << 60, maxsize=256 << 20, verbose=0) as out:
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            stem, extension = os.path.relpath(path, source).split(".", 1)
            with open(path, "rb") as file:
                out.write({"__key__": stem, extension: file.read()})
"""


# As many tars at once as granary has threads, each of its share of the directories; the last to end ends it.
TARS = """
source=$1 to=$2; shift 2
for list; do tar -C "$source" -cf "$to/${list##*/}.tar" -T "$list" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
"""


def make(source: Path, files: int, size: int) -> None:
    """Directories of 1,000 files of random bytes: none is like another, none can be compressed."""
    generator = random.Random(1)
    for number in range(files):
        folder = source / f"{number // 1000:04d}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:08d}.bin").write_bytes(generator.randbytes(size))


def warm(source: Path) -> None:
    for folder, _, names in os.walk(source):
        for name in names:
            Path(folder, name).read_bytes()


def shares(args: argparse.Namespace, source: Path) -> list:
    """Files that name each thread's share of the directories."""
    folders, lists = sorted(path.name for path in source.iterdir()), []
    for number in range(args.threads):
        path = args.work / f"share-{number}"
        path.write_text("".join(f"{folder}\n" for folder in folders[number :: args.threads]))
        lists.append(str(path))
    return lists


def systems(args: argparse.Namespace, source: Path) -> dict:
    """Name to the command that packs into a folder."""
    pack = [args.granary, "pack", "--json", str(source)]
    lists = shares(args, source)
    several = {
        f"granary pack, {args.threads} threads": lambda to: [*pack, to, "--threads", str(args.threads)],
        f"{args.threads} tar cf at once": lambda to: ["bash", "-c", TARS, "bash", str(source), to, *lists],
    }
    return {
        **(several if args.threads > 1 else {}),
        "granary pack, 1 thread": lambda to: [*pack, to, "--threads", "1"],
        "tar cf": lambda to: ["tar", "-C", str(source), "-cf", f"{to}/all.tar", "."],
        "webdataset ShardWriter": lambda to: [sys.executable, "-c", WEBDATASET, str(source), to],
    }


def once(command: list, to: Path) -> tuple:
    """Seconds until it ended, and until what it wrote was on the disk; processor seconds; bytes."""
    to.mkdir()
    before = os.times()
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ended = time.monotonic() - begun
    for path in to.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    durable = time.monotonic() - begun
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    size = sum(path.stat().st_size for path in to.rglob("*.tar"))
    shutil.rmtree(to)
    os.sync()
    return ended, durable, processor, size


def main() -> None:
    args = ARGUMENTS.parse_args()
    args.files = args.files or (4_000 if args.quick else 100_000)
    args.rounds = args.rounds or (2 if args.quick else 5)
    source = args.work / "source"
    print(f"making {args.files} files of {args.bytes} bytes", file=sys.stderr)
    make(source, args.files, args.bytes)
    os.sync()
    warm(source)
    commands = systems(args, source)
    times = {name: [] for name in commands}
    for number in range(args.rounds):
        # Another one is the first in each round.
        names = list(commands)
        names = names[number % len(names) :] + names[: number % len(names)]
        for name in names:
            to = args.work / "to"
            times[name].append(once(commands[name](str(to)), to))
            print(f"round {number + 1}, {name}: {times[name][-1][0]:.2f} s", file=sys.stderr)
    payload = args.files * args.bytes
    whole = payload + args.files * 512
    for name, rounds in times.items():
        for *_, size in rounds:
            assert size >= whole, f"{name} wrote {size} bytes, fewer than it should"
    # Ratios are of one round, so that what else the machine did meanwhile is in both.
    tar, writer = times["tar cf"], times["webdataset ShardWriter"]
    print(f"{args.files} files of {args.bytes} bytes, {args.rounds} rounds, medians (least to most); {os.cpu_count()} processors")
    print(f"with a load of {os.getloadavg()[0]:.1f} at the end\n")
    if args.quick:
        print("A quick run: it shows that all of it works, and no speed.\n")
    print("| | s | files/s | MB/s | processor s | s until durable | x tar | x tar, durable | x webdataset |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, rounds in times.items():
        seconds = [r[0] for r in rounds]
        middle = statistics.median(seconds)
        against = [
            statistics.median(of[n][column] / rounds[n][column] for n in range(args.rounds))
            for of, column in ((tar, 0), (tar, 1), (writer, 0))
        ]
        print(
            f"| {name} | {middle:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {args.files / middle:,.0f} "
            f"| {payload / middle / 1e6:,.0f} | {statistics.median(r[2] for r in rounds):.2f} "
            f"| {statistics.median(r[1] for r in rounds):.2f} | {against[0]:.2f} | {against[1]:.2f} | {against[2]:.2f} |"
        )


if __name__ == "__main__":
    main()
