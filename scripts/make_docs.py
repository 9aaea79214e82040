"""Writes the parts of the docs that are what the program prints, or checks that they are up to date.

    python scripts/make_docs.py [--check]

Figures that take long are not made here: eval_abacus.py, bench_engine.py and rsd bench print those.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
QUESTION = "(37+48)*6-129"
WIDTH = 100
_EXITS = """Answers go to standard output, everything else to standard error. Exit codes: 0 done, 1 something failed (a model file, a
context, standard output that cannot be written, a bench in which a strategy could answer no question), 2 the call was wrong (a
flag, a setting, a file or folder for what a command writes that cannot be written, a question that the trio does not take), 130
stopped by Ctrl-C. Every failure is one line on standard error that names its cause and, where there is one, the fix.

Most flags can come from a variable, such as `RSD_MAX_TOKENS` for `--max-tokens`: those below the headings Models, Rewards, Memory and
devices, Strategy, Thinking, Limits and Sampling, those of `rsd serve` that take a value, and `--history` of `rsd chat`. No variable
has what else stands below Options, such as `--quiet`, or `--strategy` of `rsd bench`; `--run-code`, `--trust-file` and `--no-fit-check`
have to be typed. A flag goes before its variable. One that can be given several times takes words with blanks between them:
`RSD_THREADS="draft=1 target=4"`.
"""


def example() -> str:
    """What ``rsd solve`` prints on a terminal, without the seconds, which differ from run to run."""
    call = [sys.executable, "-c", "from rsd_local.cli import main; main()", "solve", QUESTION]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    steps = re.sub(r" +[0-9.]+ s$", "", done.stderr, flags=re.MULTILINE)
    return f'```console\n$ rsd solve "{QUESTION}"\n{steps}{done.stdout}```\n'


def commands() -> str:
    """What each command's ``--help`` says."""
    from rsd_local.cli import cli

    parts = [f"# Commands\n\nMade by `python scripts/make_docs.py` from the commands themselves.\n\n{_EXITS}"]
    whole = click.Context(cli, info_name="rsd", terminal_width=WIDTH, help_option_names=["-h", "--help"])
    for command, name in ((cli, "rsd"), *((cli.get_command(whole, name), name) for name in cli.list_commands(whole))):
        assert command is not None
        context = whole if command is cli else click.Context(command, info_name=name, parent=whole, terminal_width=WIDTH)
        title = name if command is cli else f"rsd {name}"
        parts.append(f"## {title}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def trio_table() -> str:
    """The package's own trios, as models.toml has them."""
    from rsd_local.catalogue import Catalogue

    catalogue = Catalogue.of_the_package()
    lines = ["| trio | memory | draft | target | reward | what it is, and what to expect |", "|---|---|---|---|---|---|"]
    for name, table in catalogue.trios.items():
        used = catalogue.models_of(name)
        draft, target = (f"`{table[role]['model']}`" if role in used else "in the package" for role in ("draft", "target"))
        reward = table.get("reward_kind", "tag-logits") + (f", `{table['reward']['model']}`" if "reward" in used else "")
        lines.append(f"| `{name}` | {table['machine']} | {draft} | {target} | {reward} | {table['about']}. {table['expect']} |")
    return "\n".join(lines) + "\n"


def model_table() -> str:
    """The package's own models, as models.toml has them."""
    from rsd_local.catalogue import Catalogue
    from rsd_local.cli.showing import model_notes

    lines = ["| model | repository and file | GB | licence | context | thinking | more |", "|---|---|---|---|---|---|---|"]
    for name, entry in Catalogue.of_the_package().models.items():
        context = "—" if entry.context is None else f"{entry.context:,}"
        thinking = "—" if entry.thinking == "unknown" else entry.thinking
        where = f"[{entry.repo}](https://huggingface.co/{entry.repo}), {entry.file}"
        more = ", ".join(model_notes(entry)) or " "
        lines.append(f"| `{name}` | {where} | {entry.gigabytes:.2f} | {entry.licence or '—'} | {context} | {thinking} | {more} |")
    return "\n".join(lines) + "\n"


def placed(text: str, mark: str, content: str) -> str:
    """The text with new content between ``<!-- MARK -->`` and the next ``<!-- end -->``."""
    head, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    if not (begin and end):
        sys.exit(f"no place marked '{mark}'")
    return head + begin + content + end + tail


def main() -> None:
    """Writes or checks."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="change nothing; exit with 1 where something is out of date")
    chosen = arguments.parse_args()
    readme, reference = ROOT / "README.md", ROOT / "docs" / "cli.md"
    models = ROOT / "docs" / "models.md"
    tables = placed(placed(models.read_text(encoding="utf-8"), "trios", trio_table()), "models", model_table())
    solved = placed(readme.read_text(encoding="utf-8"), "solve example", example())
    wanted = {readme: solved, reference: commands(), models: tables}
    for path, new in wanted.items():
        if path.exists() and path.read_text(encoding="utf-8") == new:
            continue
        if chosen.check:
            sys.exit(f"{path.relative_to(ROOT)} is out of date: run python scripts/make_docs.py")
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
