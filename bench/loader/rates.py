"""The warm table and the cold one. bench/loader/run prepares what this needs and says how it is called."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cold
import data
import report
import systems

HERE = Path(__file__).parent


def run(command: list[str], seconds_max: float) -> dict[str, Any] | list[dict[str, Any]] | str:
    """A program's last line as JSON (all lines, if each is a way it measured), or what it said instead."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds_max)
    except subprocess.TimeoutExpired:
        return f"did not end in {seconds_max:.0f} s"
    lines = done.stdout.strip().splitlines()
    try:
        ways = [json.loads(line) for line in lines if line.startswith('{"way"')]
        return ways or json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        return (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]


def warm(asked: argparse.Namespace, files: list[bytes], notes: list[str]) -> report.Rounds:
    """Each system once a round, in an order that moves on by one each round."""
    all_ = systems.DECODERS if asked.decode else systems.SYSTEMS
    wanted = [name for name in all_ if not asked.only or any(word in name for word in asked.only)]
    for layout in sorted({all_[name][0] for name in wanted} | {"granary"}):
        if problem := data.lay_out(layout, files, asked.work / layout):
            notes.append(f"left out: what reads {layout}: {problem}")
            wanted = [name for name in wanted if all_[name][0] != layout]
    os.sync()
    commands = {
        name: [
            sys.executable,
            str(HERE / "systems.py"),
            name,
            str(asked.work / all_[name][0]),
            "--seconds",
            str(asked.seconds),
            *(["--decode"] if asked.decode else []),
        ]
        for name in wanted
    }
    rust = [asked.rust, str(asked.work / "granary"), str(round(asked.seconds)), str(systems.BATCH)]
    if asked.rust and not asked.decode:
        commands["Granary in Rust"] = rust
    rounds: report.Rounds = {}
    size = sum(map(len, files))
    for number in range(asked.rounds):
        names = list(commands)
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            result = run(commands[name], 120 + 20 * asked.seconds)
            if isinstance(result, list):
                for way in result:
                    rounds.setdefault(f"{name}, {way['way']}", []).append(way["samples_per_s"])
                continue
            if isinstance(result, str):
                notes.append(f"left out: {name}: {result}")
                del commands[name]
                rounds.pop(name, None)
                continue
            # Of decoded files the first system's bytes are what all must give.
            size = int(result["epoch_bytes"]) if asked.decode and not rounds else size
            if result.get("epoch_bytes", size) != size:
                notes.append(f"{name} gave {result['epoch_samples']:,.0f} samples an epoch of {len(files):,}")
            rounds.setdefault(name, []).append(result["samples"] / result["seconds"])
            print(f"round {number + 1}: {name}: {rounds[name][-1]:,.0f} samples/s", file=sys.stderr, flush=True)
    return rounds


def machine() -> dict[str, Any]:
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return {"processor": cpu, "cores": os.cpu_count(), "kernel": os.uname().release, "Python": sys.version.split()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--files", type=Path, help="a folder with PNG files; made up without")
    parser.add_argument("--rust", help="the Rust program that measures the same")
    parser.add_argument("--proxy", help="granary-bench, whose proxy makes the store slow; without it no cold table")
    parser.add_argument("--decode", action="store_true", help="decode each file to red, green and blue: other systems, no cold table")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", type=lambda words: words.split(","), default=[])
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()

    files = data.sources(asked.files, 8000, 1)
    notes: list[str] = []
    about = data.summary(files)
    kind = "PNG files of Debian's openclipart-png" if asked.files else "made-up files"
    tables, samples = [], {}
    mean = about["bytes"] / about["samples"]
    if rounds := warm(asked, files, notes):
        samples["warm"] = rounds
        tables.append(
            f"## {'Decoded' if asked.decode else 'Warm'}: {about['samples']:,} {kind}, {about['bytes'] / 1e6:,.0f} MB, in the page cache\n\n"
            + report.table(rounds, "samples/s", "Granary Loader", mean)
        )
    if asked.proxy and not asked.decode:
        rounds = cold.measure(asked, files, notes)
        samples["cold"] = rounds
        tables.append("## Cold: over RGW, 30 ms to the first byte\n\n" + report.table(rounds, "MB/s", "Granary Loader"))
    text = report.document("Loading", tables, notes, machine())
    print(text)
    if asked.output:
        asked.output.mkdir(parents=True, exist_ok=True)
        (asked.output / "loader.md").write_text(text)
        kept = {"machine": machine(), "data": about, "rounds": samples, "notes": notes}
        (asked.output / "loader.json").write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
