"""The tables and the plot of ``scripts/bench_remote.py``."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from rsd_local.bench.tables import markdown

Row = dict[str, Any]


def mean(rows: list[Row], name: str) -> float:
    """Of a figure, an answer."""
    return statistics.fmean(row[name] for row in rows)


def median(rows: list[Row], name: str) -> float:
    """Of the rounds, of a figure's mean over the answers."""
    return statistics.median(mean([row for row in rows if row["round"] == number], name) for number in {row["round"] for row in rows})


def summary(rows: list[Row], delays: list[float]) -> Row:
    """What the tables and the plot show."""
    of = {way: [row for row in rows if row["way"] == way] for way in ("rsd", "target", "speculation", "difference")}
    guesses = sorted({row["guesses"] for row in of["speculation"]})
    counted = {"RSD": of["rsd"]}
    counted |= {f"token-level speculation, {one} guesses": [row for row in of["speculation"] if row["guesses"] == one] for one in guesses}
    counted |= {"target alone, one stream": of["target"]}
    counts = {
        name: {"tokens": mean(found, "tokens"), "waits": mean(found, "waits"), "delay": [one * mean(found, "waits") for one in delays]}
        for name, found in counted.items()
    }
    names = ("steps", "target_steps", "requests", "ahead", "opening", "sent", "received")
    counts["RSD"] |= {name: mean(of["rsd"], name) for name in names}
    counts["RSD"]["most_waits_per_target_step"] = max((row["waits"] / max(1, row["target_steps"]) for row in of["rsd"]), default=0.0)
    measured = {}
    for delay in delays:
        ours, alone = ([row for row in of[way] if row["delay"] == delay] for way in ("rsd", "target"))
        measured[f"{1e3 * delay:g}"] = {
            name: median(ours, name) for name in ("seconds", "opening_seconds", "waiting", "late", "ending", "connections")
        } | {"target_seconds": median(alone, "seconds")}
    firsts = [(row["question"], row["first"]) for row in of["difference"] if row["first"] is not None]
    return {"counted": counts, "measured": measured, "compared": len(of["difference"]), "first_differences": firsts}


def tables(found: Row, delays: list[float]) -> str:
    """The summary in Markdown."""
    heads = [f"{1e3 * delay:g} ms" for delay in delays]
    ours, counted, measured = found["counted"]["RSD"], found["counted"], list(found["measured"].values())
    rows = [
        (name, f"{one['tokens']:.1f}", f"{one['waits']:.1f}", f"{one['tokens'] / one['waits']:.1f}" if one["waits"] else "–",
            *(f"{seconds:.2f}" for seconds in one["delay"]))
        for name, one in counted.items()
    ]  # fmt: skip
    took = [
        ("RSD: seconds of an answer", *(f"{one['seconds']:.2f}" for one in measured)),
        ("- for the prompt's tokens", *(f"{one['opening_seconds']:.2f}" for one in measured)),
        ("- for steps of the target, beyond what the server computed", *(f"{one['waiting']:.2f}" for one in measured)),
        ("- of these until what was sent ahead was out", *(f"{one['late']:.2f}" for one in measured)),
        ("- connections that an answer opened", *(f"{one['connections']:.1f}" for one in measured)),
        ("- behind the last step, for the counters", *(f"{one['ending']:.2f}" for one in measured)),
        ("target alone: seconds of an answer", *(f"{one['target_seconds']:.2f}" for one in measured)),
    ]
    differ = [str(place) for _, place in found["first_differences"]]
    head = ("an answer by", "tokens", "round trips waited for", "tokens per round trip", *(f"delay paid at {one}" for one in heads))
    parts = (
        markdown(head, rows),
        f"RSD: {ours['steps']:.1f} steps, {ours['target_steps']:.1f} of them the target's; {ours['requests']:.1f} requests, of which "
        f"{ours['ahead']:.1f} were sent ahead; at most {ours['most_waits_per_target_step']:.2f} round trips for each step of the target; "
        f"{ours['sent'] / 1e3:.1f} kB sent, {ours['received'] / 1e3:.1f} kB received; besides, {ours['opening']:.0f} requests for the "
        "prompt's tokens, as for the target alone.",
        markdown(("measured", *heads), took),
        f"Greedy, the server's target against the same file here: {found['compared'] - len(differ)} of {found['compared']} texts alike"
        + (f"; first different tokens, from 0: {', '.join(differ)}" if differ else ""),
    )
    return "\n\n".join(parts)


def draw(found: Row, delays: list[float], file: Path) -> None:
    """The seconds of delay that an answer pays, against the delay of the link."""
    from rsd_local.bench.drawing import COLOURS, DPI, MARKERS, WIDTH, legend_below, new_figure

    figure, axes = new_figure(WIDTH, 3.2)
    places = [1e3 * delay for delay in delays]
    for number, (name, one) in enumerate(found["counted"].items()):
        axes.plot(places, one["delay"], color=COLOURS[number], marker=MARKERS[number], markersize=5, label=name)
    waited = [one["waiting"] for one in found["measured"].values()]
    axes.plot(places, waited, color=COLOURS[0], marker="x", linestyle=":", label="RSD, measured waiting")
    axes.set_xlabel("round trip of the link, ms")
    axes.set_ylabel("seconds of delay an answer")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    legend_below(axes)
    figure.savefig(file, dpi=DPI, metadata={"Software": None})
