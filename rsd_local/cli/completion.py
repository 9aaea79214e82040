"""``rsd completion``: a shell's completion script, and the candidates that it asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import get_args

import click

from rsd_local.cli.command import StrictCommand, names_of, read_words, takes_value
from rsd_local.cli.text import cut, printable
from rsd_local.config import ROLES, VERIFIERS, CacheType, FlashAttention, RewardKind, Strategy
from rsd_local.errors import RSDError

Candidates = list[tuple[str, str]]
"""Values and what they are."""

FILE, FOLDER = ":file", ":dir"
"""Lines of the answer that leave the rest to the shell."""

_BASH = r"""
_rsd_completion() {
    local line current="${COMP_WORDS[COMP_CWORD]}"
    case $current in =|:) current= ;; esac
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :file) compopt -o filenames 2>/dev/null
                   while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$current") ;;
            :dir)  compopt -o filenames 2>/dev/null
                   while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -d -- "$current") ;;
            *)     COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("$1" completion bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _rsd_completion rsd
"""
_ZSH = r"""
#compdef rsd
_rsd() {
    local line
    local -a found
    for line in "${(@f)$("${words[1]}" completion zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
            (:file) compset -P '*='; _files ;;
            (:dir) compset -P '*='; _files -/ ;;
            (?*) found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
        esac
    done
    (( $#found )) && _describe rsd found
}
if [[ $funcstack[1] == _rsd ]]; then _rsd "$@"; else compdef _rsd rsd; fi
"""
_FISH = r"""
function __rsd_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] completion fish -- $words[2..-1] "$current" 2>/dev/null)
        switch $line
            case :file
                __fish_complete_path (string replace -r '.*=' '' -- "$current")
            case :dir
                __fish_complete_directories (string replace -r '.*=' '' -- "$current")
            case '*'
                echo $line
        end
    end
end
complete -c rsd -f -a '(__rsd_complete)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_INSTALL = """\b
bash, in ~/.bashrc:                   eval "$(rsd completion bash)"
zsh, in ~/.zshrc, behind compinit:    eval "$(rsd completion zsh)"
fish, in ~/.config/fish/config.fish:  rsd completion fish | source"""


@click.command(cls=StrictCommand, help=f"Print the completion script of a shell: bash, zsh or fish.\n\n{_INSTALL}")
@click.argument("shell", type=click.Choice(tuple(SCRIPTS)))
@click.argument("words", metavar="", nargs=-1)
def completion(shell: str, words: tuple[str, ...]) -> None:
    """Prints the script; with the words of a call, what may come in place of the last one."""
    if not words:
        click.echo(SCRIPTS[shell].strip("\n"))
        return
    with contextlib.suppress(RSDError):  # a settings file that is not right; the command itself says so
        lines = complete(words) if shell != "bash" else _behind_breaks(words)
        click.echo("".join(f"{line}\n" for line in lines), nl=False)


def complete(words: Sequence[str]) -> list[str]:
    """The candidates for the last of the words behind ``rsd``: a value, a tab and what it is; or what the shell is to list.

    Args:
        words: of the call so far, the last one unfinished, maybe empty.
    """
    found = [(value, about) for value, about in _candidates(list(words[:-1]), words[-1])]
    return [value if value in (FILE, FOLDER) else f"{value}\t{cut(printable(' '.join(about.split())))}" for value, about in found]


def _behind_breaks(words: Sequence[str]) -> list[str]:
    """As ``complete`` for bash, to which ``=`` and ``:`` are words of their own, and whose last word begins behind them."""
    joined: list[str] = []
    glues = False
    for word in words:
        breaks = bool(word) and not word.strip("=:")
        if joined and (breaks or glues):
            joined[-1] += word
        else:
            joined.append(word)
        glues = breaks
    start = max(joined[-1].rfind(mark) for mark in "=:") + 1
    return [line if line in (FILE, FOLDER) else line[start:] for line in complete(joined)]


def _candidates(before: list[str], current: str) -> Candidates:
    from rsd_local.cli import GROUPS, cli

    whole = click.Context(cli, info_name="rsd")
    place = next((place for place, word in enumerate(before) if not word.startswith("-")), None)
    if place is None:
        commands = [(name, about) for commands in GROUPS.values() for name, (_, about) in commands.items()]
        return _options(cli.get_params(whole), [], current) if current.startswith("-") else _begun(commands, current)
    command = cli.get_command(whole, before[place])
    if command is None:
        return []
    parameters = command.get_params(click.Context(command, whole, before[place]))
    known, given = names_of(parameters), before[place + 1 :]
    read = read_words(known, given)
    if read.waiting is not None:
        return _values(read.waiting, before[place], current)
    if current.startswith("-") and "--" not in given:
        name, is_given, value = current.partition("=")
        if is_given and name in known and takes_value(known[name]):
            values = _values(known[name], before[place], value)
            return [(text if text in (FILE, FOLDER) else f"{name}={text}", about) for text, about in values]
        return _options(parameters, read.options, current)
    arguments = [one for one in parameters if isinstance(one, click.Argument)]
    if len(read.values) < len(arguments) or (arguments and arguments[-1].nargs < 0 and arguments[-1].type.name == "Path"):
        return _values(arguments[min(len(read.values), len(arguments) - 1)], before[place], current)
    return [] if current else _options(parameters, read.options, "--")


def _options(parameters: Sequence[click.Parameter], given: Sequence[str], current: str) -> Candidates:
    """Names of options, those that were given left out where they can be given once."""
    found = []
    for option in dict.fromkeys(names_of(parameters).values()):
        if not option.hidden and (option.multiple or not set(option.opts) & set(given)):
            found += [(name, option.help or "") for name in option.opts]
    return _begun(found, current)


def _values(parameter: click.Parameter, command: str, current: str) -> Candidates:
    """Values of an option or argument."""
    role, is_given, value = current.rpartition("=")
    if (parameter.metavar or "").startswith("[ROLE=]"):
        roles = [] if is_given else [(f"{name}=", "for this role alone") for name in ROLES]
        return _begun([(f"{role}{is_given}{text}", "") for text in _PER_ROLE.get(parameter.name or "", ())] + roles, current)
    if parameter.name == "reward_kind":
        head, comma, _ = current.rpartition(",")
        return _begun([(f"{head}{comma}{kind}", "") for kind in get_args(RewardKind) if kind not in head.split(",")], current)
    if isinstance(parameter.type, click.Choice):
        return _begun([(str(choice), "") for choice in parameter.type.choices], current)
    make = _trios if (command, parameter.name) == ("fit", "name") else _BY_NAME.get(parameter.name or "")
    found = _begun(make(), current) if make else []
    if (parameter.metavar or "").strip("[].") == "DIR":
        return [(FOLDER, "")]
    takes_file = parameter.type.name in ("Path", "file_or_url") or make in (_trios, _datasets)
    return [*found, (FILE, "")] if takes_file else found


def _begun(candidates: Iterable[tuple[str, str]], current: str) -> Candidates:
    return [(value, about) for value, about in candidates if value.startswith(current)]


def _trios() -> Candidates:
    from rsd_local.catalogue import Catalogue

    trios = Catalogue.read().trios.items()
    return [(name, "; ".join(str(table[key]) for key in ("machine", "about") if key in table)) for name, table in trios]


def _models_and_trios() -> Candidates:
    from rsd_local.catalogue import Catalogue

    return [
        *_trios(),
        *((name, f"{entry.gigabytes:.2f} GB, {entry.licence or 'licence unknown'}") for name, entry in Catalogue.read().models.items()),
    ]


def _ollama() -> Candidates:
    from rsd_local.config.ollama import PREFIX, model_names, stores

    names = dict.fromkeys(f"{PREFIX}{name}" for store in stores() for name in model_names(store))
    return [(name, "a model of Ollama") for name in names]


def _datasets() -> Candidates:
    from rsd_local.bench import hub, published
    from rsd_local.bench.datasets import ARITHMETIC

    return [(name, "") for name in (ARITHMETIC, *hub.SOURCES, *published.SOURCES)]


def _commands() -> Candidates:
    from rsd_local.cli import GROUPS

    return [(name, about) for commands in GROUPS.values() for name, (_, about) in commands.items()]


_PER_ROLE = {"n_gpu_layers": ("all", "auto"), "flash_attn": get_args(FlashAttention), "cache_type": get_args(CacheType)}
_BY_NAME: dict[str, Callable[[], Candidates]] = {
    "trio": _trios,
    **dict.fromkeys(("draft", "target", "reward"), _ollama),
    "name": _models_and_trios,
    "dataset": _datasets,
    "data": _datasets,
    "specs": lambda: [(name, "") for name in get_args(Strategy)],
    "verifier": lambda: [(name.partition(":")[0] + ":" * (":" in name), "") for name in VERIFIERS],
    "delimiter": lambda: [(name, "") for name in ("paragraph", "line", "sentence", "code-block", "fence", "tokens:", "re:", "text:")],
    "command": _commands,
}
"""Names of parameters, and the values that they take."""
