"""``rsd serve``: an OpenAI-compatible server."""

from __future__ import annotations

import importlib.util
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rsd_local.cli.flags import make_params
from rsd_local.cli.options import StrictCommand, option, run_options, several_trios_options
from rsd_local.cli.streams import start_log
from rsd_local.config import Params, RemoteRole, Trio, require

if TYPE_CHECKING:
    from rsd_local.reasoner import LoadProgress
    from rsd_local.server.models import Loaded, Loader, Offer
    from rsd_local.server.record import Recorder

_NEEDED = ("starlette", "uvicorn", "prometheus_client")
_NAMED = 60  # characters of a name that comes from a file's


@click.command(cls=StrictCommand)
@several_trios_options
@run_options
@option("--host", default="127.0.0.1", show_default=True, help="The address to listen at; one that other machines reach needs a key.")
@option("--port", type=click.IntRange(0, 65535), default=8177, show_default=True, help="The port; 0 for any that is free.")
@option("-a", "--alias", metavar="NAME", help="The model's name for clients. Default: the trio's.")
@option("-np", "--parallel", type=click.IntRange(1, 64), help="Answers at once of a trio. Default: its own, mostly 1.")
@option("--queue", type=int, metavar="N", help="How many more may wait. Default: the trio's own, mostly 256.")
@option("--models-max", type=click.IntRange(1, 64), default=1, show_default=True, help="Trios loaded at once; the others take turns.")
@option("--idle-unload", type=click.FloatRange(min=0), default=0.0, help="Seconds until a trio that nobody asks is unloaded. 0: never.")
@option("--api-key-file", type=Path, metavar="FILE", help="Keys, one a line; a request must name one of them.")
@option("--allowed-host", multiple=True, metavar="NAME", help="A further name in Host that is served; again for each.")
@option("--cors-origin", multiple=True, metavar="ORIGIN", help="A page that may ask, such as http://localhost:3000, or *; again for each.")
@option("--timeout", type=click.FloatRange(min=1), default=3600.0, show_default=True, help="Seconds that an answer may take.")
@option("--grace", type=click.FloatRange(min=0), default=30.0, show_default=True, help="Seconds for running answers at the end.")
@option("--run-log", type=Path, metavar="DIR", help="Write one line an answer there, without its text; rsd report reads it.")
@click.option("--log-text", is_flag=True, help="With --run-log: questions and answers too.")
@click.option("--log-json", is_flag=True, help="Log objects, one a line.")
@click.option("-v", "--verbose", is_flag=True, help="Show llama.cpp's log.")
def serve(verbose: bool, log_json: bool, **flags: Any) -> int:
    """Serve trios behind OpenAI's API.

    POST /v1/chat/completions and /v1/completions, GET /v1/models, /health, /props, /metrics and /openapi.json, and a page at /.
    Flags of a run are what a request takes where it says nothing. Requests are logged on standard error, without their text. SIGTERM
    or Ctrl-C ends it: no new work is taken, and running answers have --grace seconds.
    """
    missing = [name.replace("_", "-") for name in _NEEDED if importlib.util.find_spec(name) is None]
    require(not missing, f"{', '.join(missing)} not installed", "pip install 'rsd-local[server]'")
    from rsd_local.server.exchange import Patience
    from rsd_local.server.guard import Guard, read_keys
    from rsd_local.server.process import Settings
    from rsd_local.server.process import serve as run_server

    require(flags["run_log"] is not None or not flags["log_text"], "--log-text is for --run-log", "give --run-log DIR")
    offers = _offers(flags, click.get_current_context())
    keys = read_keys(flags["api_key_file"]) if flags["api_key_file"] else ()
    settings = Settings(
        flags["host"],
        flags["port"],
        offers[0].name,
        Guard(keys, (*Guard().hosts, *(name.lower() for name in flags["allowed_host"])), flags["cors_origin"]),
        flags["grace"],
        Patience(answer=flags["timeout"]),
        offers[1:],
        flags["models_max"],
        flags["idle_unload"],
        offers[0].config,
    )
    _log(as_json=log_json, verbose=verbose)
    loading = ", ".join(offer.name for offer in offers[: flags["models_max"]])
    return run_server(settings, offers[0].loader, lambda url: _say(loading, url), _ready)


def _offers(flags: dict[str, Any], context: click.Context) -> tuple[Offer, ...]:
    """The trios that the flags name.

    Raises:
        ConfigError: two have one name, or there is one alias for several.
    """
    from rsd_local.cli.chat.trios import chat_trio
    from rsd_local.server.models import Offer

    found: dict[str, Offer] = {}
    named = flags["trio"] or (None,)
    require(flags["alias"] is None or len(named) == 1, "--alias names one trio, and there are several", "leave it away")
    for trio_name in named:
        of_one = flags | {"trio": trio_name}
        trio = chat_trio(of_one, flags["parallel"])
        trio = replace(trio, queue=trio.queue if flags["queue"] is None else flags["queue"])
        name = flags["alias"] or _name(of_one, trio)
        require(name not in found, f"two trios are called {name}", "name their files otherwise")
        params = make_params(of_one, trio)
        folder = flags["run_log"] and (flags["run_log"] / name if len(named) > 1 else flags["run_log"])
        found[name] = Offer(name, _loader(trio, params, _Kept(name, folder, flags["log_text"]), context), trio, params)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of a trio's answers.

    Attributes:
        name: of the trio, for clients.
        folder: of the run log, one for each trio; None for none.
        texts: whether it has texts.
    """

    name: str
    folder: Path | None
    texts: bool

    def recorder(self, trio: Trio) -> Recorder:
        """Writes it down.

        Raises:
            ConfigError: the folder cannot be used.
        """
        from rsd_local.run_log.folder import RunLog, begin, identity
        from rsd_local.server.record import Recorder

        if self.folder is None:
            return Recorder(trio)
        config = identity(trio)
        begin(self.folder, self.name, config, trio.tuned)
        return Recorder(trio, RunLog(self.folder, config), texts=self.texts)


def _name(flags: dict[str, Any], trio: Trio) -> str:
    """What clients call the trio: its name, or that of its file or of the target's."""
    if flags["trio"]:
        return Path(flags["trio"]).stem[:_NAMED]
    name = trio.target.name if isinstance(trio.target, RemoteRole) else trio.target.path.stem
    return name[:_NAMED] if flags["target"] else "abacus"


def _loader(trio: Trio, params: Params, kept: _Kept, context: click.Context) -> Loader:
    """Loads the trio in whatever thread; the flags of the call say what its answers take."""

    def load(progress: LoadProgress) -> Loaded:
        from rsd_local.bench.machine import note_run
        from rsd_local.cli import render
        from rsd_local.cli.thoughts import with_thoughts
        from rsd_local.reasoner import Reasoner
        from rsd_local.server.models import Loaded

        shown = render.loading()

        def both(role: Any, share: float) -> None:
            progress(role, share)
            if shown is not None:
                shown(role, share)

        with context.scope(cleanup=False):
            recorder = kept.recorder(trio)
            reasoner: Reasoner | None = None
            try:
                reasoner = Reasoner.open(trio, both)
                if kept.folder is not None:
                    note_run(kept.folder, {role: engine.threads for role, engine in reasoner.engines().items()})
                chosen = context.get_parameter_source("seed") != ParameterSource.DEFAULT
                return Loaded(reasoner, with_thoughts(params, reasoner), params.sampling.seed if chosen else None, recorder)
            except BaseException:
                if reasoner is not None:
                    reasoner.close()
                recorder.close()
                raise

    return load


def _say(name: str, url: str) -> None:
    click.echo(f"loading {name}; its page is at {url}/ and its API at {url}/v1", err=True)


def _ready() -> None:
    click.echo("ready; Ctrl-C ends it", err=True)


def _log(*, as_json: bool, verbose: bool) -> None:
    """Logging on standard error: requests, warnings, and where asked for all that llama.cpp says."""
    from rsd_local.server.access import JsonLines

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    start_log(handler, logging.DEBUG if verbose else logging.WARNING)
    logging.getLogger("rsd_local.server").setLevel(logging.INFO)
