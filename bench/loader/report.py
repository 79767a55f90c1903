"""Rounds into a table: medians, spread, and how many times Granary's."""

from statistics import median
from typing import Any

Rounds = dict[str, list[float]]


def table(rounds: Rounds, unit: str, beside: str, bytes_per_sample: float | None = None) -> str:
    """Markdown. A ratio is of the two rates of one round, and its median over rounds."""
    rate = ["samples/s", "MB/s", "min-max"] if bytes_per_sample else [unit, "min-max"]
    lines = ["| system | " + " | ".join(rate) + f" | {beside} is |", "|---|" + "---|" * (len(rate) + 1)]
    for name, rates in sorted(rounds.items(), key=lambda item: -median(item[1])):
        middle = median(rates)
        cells = [f"{middle:,.0f}"]
        if bytes_per_sample:
            cells.append(f"{middle * bytes_per_sample / 1e6:,.0f}")
        cells.append(f"{min(rates):,.0f}-{max(rates):,.0f}")
        pairs = list(zip(rounds.get(beside, []), rates))
        cells.append("" if name == beside or not pairs else f"{median(a / b for a, b in pairs):.2f}x")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def document(title: str, tables: list[str], notes: list[str], machine: dict[str, Any]) -> str:
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    return "\n\n".join([f"# {title}", about, *tables, "\n".join(f"* {note}" for note in notes)]) + "\n"
