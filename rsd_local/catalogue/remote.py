"""What the hub says of a file before it is downloaded, and its refusals as errors of ours."""

from __future__ import annotations

import importlib
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from rsd_local.errors import ConfigError, RSDError

LONGEST_WAIT = 3.0  # seconds that a hub may ask for before a second try; more is said, not waited for
_LONGEST_MESSAGE = 300
_PLAIN = re.compile(r"[A-Za-z0-9][\w.-]{0,127}", re.ASCII)  # becomes the name of a file
_ACCOUNT = "hf auth login, or set HF_TOKEN"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of the hub.

    Attributes:
        name: what it is, for messages.
        repo: OWNER/NAME.
        file: its path in the repository.
        revision: a commit; the main branch where there is none.
        kind: ``model`` or ``dataset``.
        fix: what to do where the hub does not have it.
    """

    name: str
    repo: str
    file: str
    revision: str | None = None
    kind: str = "model"
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.repo}/{self.file}" + (f" at {self.revision[:10]})" if self.revision else ")")

    def url(self, revision: str | None = None) -> str:
        """Where the hub has it."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, self.file, repo_type=self.kind, revision=revision or self.revision)


@dataclass(frozen=True, slots=True)
class Remote:
    """What the hub says of a file.

    Attributes:
        commit: that it belongs to.
        etag: the hub's name of its content: a SHA-256 for a large file.
        size: bytes; None where the hub does not say.
    """

    commit: str
    etag: str
    size: int | None


class Unreachable(RSDError):
    """The hub did not answer, or said to come back later: a second try may work.

    Attributes:
        wait: seconds before one.
    """

    def __init__(self, message: str, *, hint: str = "", wait: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.wait = wait


def ask(wanted: HubFile) -> Remote:
    """Ask the hub for what it says of a file; a second time where it does not answer.

    Raises:
        ConfigError: it asks for an account.
        RSDError: it cannot be reached, or refuses; the message has its status and its own words.
    """
    try:
        return _ask(wanted)
    except Unreachable as first:
        if first.wait > LONGEST_WAIT:
            raise
        time.sleep(first.wait)
    return _ask(wanted)


def _ask(wanted: HubFile) -> Remote:
    from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT

    first = url = wanted.url()
    settings: dict[str, Any] = {"headers": headers(), "timeout": HF_HUB_ETAG_TIMEOUT, "follow_redirects": False}
    for _ in range(5):
        with answering(wanted, url) as http:
            answer = http.request("HEAD", url, **settings)
            status, said = answer.status_code, answer.headers
            if status >= 400:
                body = "" if said.get("X-Error-Message") else _body(http, url, settings)
                raise refusal(wanted, status, said, body)
        onward = urllib.parse.urljoin(url, said.get("Location", ""))
        away = _host(onward) not in (_host(first), _host(url))
        if not 300 <= status < 400 or (away and "X-Repo-Commit" in said):  # what leads to a store of files is the answer itself
            return _remote(wanted, said, url, status)
        if away:  # a token is for the hub alone
            settings["headers"] = {name: value for name, value in settings["headers"].items() if name.lower() != "authorization"}
        url = onward
    raise RSDError(f"{wanted}: the hub leads from address to address without an end", hint="check HF_ENDPOINT")


def _remote(wanted: HubFile, said: Mapping[str, str], url: str, status: int) -> Remote:
    commit = said.get("X-Repo-Commit", "")
    etag = (said.get("X-Linked-ETag") or said.get("ETag") or "").removeprefix("W/").strip('"')
    if not _PLAIN.fullmatch(commit) or not _PLAIN.fullmatch(etag):
        raise RSDError(
            f"{wanted}: {_host(url)} answers {status}, but not as a model hub does: X-Repo-Commit and ETag are missing or strange",
            hint="check HF_ENDPOINT and the proxy, or sign in to this network with a browser",
        )
    size = said.get("X-Linked-Size") or ("" if 300 <= status < 400 else said.get("Content-Length", ""))
    return Remote(commit, etag, int(size) if size.isdecimal() else None)


def headers() -> dict[str, str]:
    """What every request says: the account's token, where there is one, and that nothing is to be compressed."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    return dict(build_hf_headers(library_name="rsd_local")) | {"Accept-Encoding": "identity"}


class answering:  # noqa: N801  reads as a statement
    """Gives huggingface_hub's HTTP client, with this machine's proxies and certificates, and turns its errors into ours.

    Args:
        wanted: what is asked for.
        url: where.
        fails: what is said of the hub where it does not answer.
    """

    def __init__(self, wanted: HubFile, url: str, fails: str = "cannot be reached") -> None:
        self._wanted, self._url, self._fails = wanted, url, fails

    def __enter__(self) -> Any:
        from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

        session = get_session()
        client = next(kind for kind in type(session).__mro__ if kind.__name__ == "Client")
        self._library = importlib.import_module(client.__module__.partition(".")[0])  # httpx, or its successor
        return session

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, self._library.TransportError):
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> RSDError:
        why, host = str(error) or type(error).__name__, _host(self._url)
        if isinstance(error, self._library.UnsupportedProtocol):
            return ConfigError(f"{self._wanted}: {why}", hint="check HF_ENDPOINT")
        if proxy := _proxy(self._url):
            return Unreachable(f"{self._wanted}: {host} {self._fails} through the proxy {proxy}: {why}", hint="check HTTPS_PROXY")
        fix = "check the connection, or HF_ENDPOINT"
        if "CERTIFICATE" in why.upper():
            fix = "SSL_CERT_FILE can name the certificates of your network"
        return Unreachable(f"{self._wanted}: {host} {self._fails}: {why}", hint=fix)


def refusal(wanted: HubFile, status: int, said: Mapping[str, str], body: str = "") -> RSDError:
    """The error for an answer of the hub that is none.

    Args:
        wanted: what was asked for.
        status: of the answer.
        said: its headers.
        body: its text, where there is one.
    """
    reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    message = " ".join((said.get("X-Error-Message") or _words(body)).split())[:_LONGEST_MESSAGE]
    answer = f"{status} {reason}".strip() + (f": {message}" if message else "")
    code = said.get("X-Error-Code", "")
    if code == "GatedRepo" or "gated" in message.lower():
        page = wanted.repo if wanted.kind == "model" else f"datasets/{wanted.repo}"
        return ConfigError(
            f"{wanted.name} asks for an account on the hub ({answer})",
            hint=f"accept its terms on its page, https://huggingface.co/{page}, then {_ACCOUNT}",
        )
    if status == 401:
        fix = f"it is private or gated, or there is none of this name; with an account: {_ACCOUNT}"
        return ConfigError(f"{wanted}: the hub asks who you are ({answer})", hint=fix)
    if status == 404 or code in ("EntryNotFound", "RepoNotFound", "RevisionNotFound"):
        return RSDError(f"{wanted.name}: the hub has no {wanted.repo}/{wanted.file} ({answer})", hint=wanted.fix)
    if status == 403:
        return RSDError(f"{wanted}: the hub refuses it ({answer})", hint=f"where it needs an account: {_ACCOUNT}")
    if status in (408, 429) or status >= 500:
        wait = _seconds(said)
        again = "try again later" if wait is None else f"try again in {wait:.0f} s"
        fix = again + (f"; an account has a higher limit: {_ACCOUNT}" if status == 429 else "")
        return Unreachable(f"{wanted}: the hub answers {answer}", hint=fix, wait=1.0 if wait is None else wait)
    return RSDError(f"{wanted}: the hub answers {answer}", hint="check HF_ENDPOINT and the proxy")


def _body(http: Any, url: str, settings: Mapping[str, Any]) -> str:
    """The text of a refusal, which an answer to HEAD has not."""
    with http.stream("GET", url, **settings) as answer:
        return text_of(answer) if answer.status_code >= 400 else ""


def text_of(answer: Any) -> str:
    """The beginning of an answer's text; pages for people are left out."""
    if "html" in answer.headers.get("Content-Type", ""):
        return ""
    body = b""
    for piece in answer.iter_raw():
        body += piece
        if len(body) > 4096:
            break
    return body.decode("utf-8", "replace")


def _words(body: str) -> str:
    """The message of an error's JSON, or the text itself."""
    try:
        found = json.loads(body)
    except ValueError:
        return "" if body.lstrip().startswith("<") else body
    return str(found.get("error") or found.get("message") or "") if isinstance(found, dict) else ""


def _seconds(said: Mapping[str, str]) -> float | None:
    """How long the hub asks to wait: Retry-After (RFC 9110, 10.2.3) or RateLimit's t."""
    after = said.get("Retry-After", "").strip()
    if after.isdecimal():
        return float(after)
    try:
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    except (TypeError, ValueError):
        found = re.search(r"\br\s*=\s*0\s*;\s*t\s*=\s*(\d+)", said.get("RateLimit", ""))
        return float(found[1]) if found else None


def _host(url: str) -> str:
    parsed = urllib.parse.urlsplit(url)
    return f"{parsed.scheme}://{parsed.hostname or ''}" + (f":{parsed.port}" if parsed.port else "")


def _proxy(url: str) -> str:
    """The proxy that a request goes through, without its password; empty where there is none."""
    parsed = urllib.parse.urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parsed.scheme) or proxies.get("all")
    return _host(proxy if "://" in proxy else f"http://{proxy}") if proxy and not urllib.request.proxy_bypass(parsed.netloc) else ""
