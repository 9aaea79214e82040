"""Files of the hub through huggingface_hub: its cache, its token, its mirrors; and its failures as errors of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rsd_local.errors import ConfigError, RSDError

Progress = Callable[[int, int], None]
"""Told the bytes that are there and those of the whole file, from the downloading thread."""


def fetch(
    name: str, repo: str, file: str, revision: str | None = None, *, kind: str = "model", fix: str = "", progress: Progress | None = None
) -> Path:
    """The path of a file in the cache; downloaded first where it is not there.

    Args:
        name: what it is, for messages.
        repo: OWNER/NAME.
        file: its path in the repository.
        revision: a commit; the main branch where there is none.
        kind: ``model`` or ``dataset``.
        fix: what to do where the hub does not have it.
        progress: told how far the download is.

    Raises:
        ConfigError: it asks for an account.
        RSDError: it cannot be fetched.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    at = f"{repo}/{file}" + (f" at {revision[:10]}" if revision else "")
    try:
        return Path(hf_hub_download(repo, file, repo_type=kind, revision=revision, tqdm_class=_bar(progress)))
    except GatedRepoError:
        raise ConfigError(
            f"{name} asks for an account on the hub", hint=f"accept its terms on its page ({repo}), then set HF_TOKEN"
        ) from None
    except LocalEntryNotFoundError:
        raise RSDError(f"{name} ({at}) is not in the cache, and the hub does not answer", hint="go online, or set HF_ENDPOINT") from None
    except (EntryNotFoundError, RepositoryNotFoundError):
        raise RSDError(f"{name}: the hub has no {at}", hint=fix) from None
    except Exception as error:  # huggingface_hub lets its HTTP library's own errors through, and that has changed before
        raise RSDError(f"{name} ({at}) cannot be fetched: {error}", hint="try again later") from None


def _bar(progress: Progress | None) -> Any:
    """What huggingface_hub draws its progress with: a bar that draws nothing and tells ``progress``."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Told(tqdm):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings | {"disable": True})  # type: ignore[no-untyped-call]
            self._there, self._whole = int(settings.get("initial") or 0), int(settings.get("total") or 0)

        def update(self, n: float | None = 1) -> None:
            self._there += int(n or 0)
            if progress is not None:
                progress(self._there, self._whole)

    return Told
