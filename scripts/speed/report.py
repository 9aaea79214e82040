"""The bench's tables, its JSON, and one plot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsd_local.bench.machine import cpu_name
from rsd_local.bench.tables import markdown
from speed.rounds import Case, Results, pace, spread

PARTS = {"draft": "draft writes", "prefill": "target reads", "decode": "target writes", "reward": "reward", "rest": "everything else"}
"""Of the time of a token, by key in a result."""


def case_json(case: Case, rounds: list[Results]) -> dict[str, Any]:
    """A case with its rounds, as the file has it."""
    speeds = {name: spread([1 / pace(one[name]) for one in rounds]) for name in case.turns}
    told = []
    for figure in case.figures:
        values = [figure.value(one) for one in rounds]
        median, least, greatest = spread(values)
        holds = {} if figure.bar is None else {"bar": figure.bar, "at_most": figure.at_most, "holds": figure.holds(median)}
        told.append({"label": figure.label, "median": median, "least": least, "greatest": greatest, "unit": figure.unit} | holds)
    tokens_per_second = {name: dict(zip(("median", "least", "greatest"), made, strict=True)) for name, made in speeds.items()}
    return {"row": case.row, "case": case.name, "tokens_per_second": tokens_per_second, "figures": told, "rounds": rounds}


def tables(made: Mapping[str, Any]) -> str:
    """A case in Markdown: the competitors, then what is told of them."""
    count = len(made["rounds"])
    rows = [(name, _spread(one)) for name, one in made["tokens_per_second"].items()]
    text = [
        f"### {made['row']}: {made['case']}",
        f"Medians of {count} rounds in turns, least … greatest; ratios of paired rounds.",
        markdown(("competitor", "tokens/s"), rows),
    ]
    bars = [(one["label"], _spread(one), *_bar(one)) for one in made["figures"]]
    text.append(markdown(("figure", "median (least … greatest)", "bar", "holds"), bars))
    parts = [(name, one) for name, one in _usual(made).items() if "parts" in one]
    if parts:
        head = ("milliseconds a token", *PARTS.values(), "target's share of steps")
        cells = [(name, *(f"{1e3 * one['parts'][key]:.1f}" for key in PARTS), f"{one['share']:.0%}") for name, one in parts]
        text.append(markdown(head, cells))
    return "\n\n".join(text)


def _usual(made: Mapping[str, Any]) -> dict[str, Any]:
    """Each competitor's round of median speed, in the order of the tables."""
    rounds = made["rounds"]
    return {name: sorted((one[name] for one in rounds), key=pace)[len(rounds) // 2] for name in made["tokens_per_second"]}


def _spread(one: Mapping[str, Any]) -> str:
    unit = one.get("unit", "")
    return f"{one['median']:.2f}{unit} ({one['least']:.2f} … {one['greatest']:.2f})"


def _bar(one: Mapping[str, Any]) -> tuple[str, str]:
    if "bar" not in one:
        return "", ""
    return f"{'≤' if one['at_most'] else '≥'} {one['bar']:g}{one['unit']}", "yes" if one["holds"] else "no"


def builds(cases: list[dict[str, Any]]) -> dict[str, set[str]]:
    """The libraries that took part, with the instruction sets that each was built for."""
    said = {one["build"] for case in cases for made in case["rounds"] for one in made.values()}
    return {line.partition(": ")[0]: {name for name, value in re.findall(r"(\w+) = (\d+)", line) if value != "0"} for line in sorted(said)}


def preface(machine: Mapping[str, Any], cases: list[dict[str, Any]]) -> str:
    """The machine and the libraries, and a warning where these are not alike."""
    gpus = f"; {', '.join(machine['gpus'])}" if machine["gpus"] else ""
    threads = next(iter(machine["threads"].values()))
    lines = [
        f"{cpu_name()}, {machine['cores']['physical']} cores{gpus}, {threads} threads, {machine['system']}",
        ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version),
    ]
    found = builds(cases)
    lines += [f"{name}: {' '.join(sorted(sets)) or 'it does not say its instruction sets'}" for name, sets in found.items()]
    own = found.get("rsd_local", set())
    for name, sets in found.items():
        if sets and sets != own:
            lines.append(f"**{name} was built for other instruction sets than rsd_local's library: ratios to it are of builds too.**")
    return "\n".join(f"- {line}" for line in lines)


def draw(cases: list[dict[str, Any]], path: Path) -> bool:
    """Draw the time of a token by its parts for each run of RSD of the row shapes beside its target alone; False where there is none."""
    bars: list[tuple[str, dict[str, float]]] = []
    for case in cases:
        if case["row"] == "shapes":
            for name, one in _usual(case).items():
                parts = one.get("parts") or {"decode": pace(one)}
                share = f"\nthe target writes {one['share']:.0%}" if "share" in one else ""
                bars.append((f"{case['case']}, {name}{share}", parts))
    if not bars:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 1.5 + 0.55 * len(bars)), layout="constrained")
    left = [0.0] * len(bars)
    for key, label in PARTS.items():
        widths = [1e3 * parts.get(key, 0.0) for _, parts in bars]
        axes.barh(range(len(bars)), widths, left=left, label=label)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds a token")
    figure.legend(loc="outside lower center", ncols=len(PARTS))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True
