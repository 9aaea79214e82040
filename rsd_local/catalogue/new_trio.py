"""Writing a trio's file for a draft and a target that have no reward of their own yet."""

from __future__ import annotations

from pathlib import Path

import tomlkit

from rsd_local.errors import ConfigError

REWARD = "judge"
"""The reward that every instruct model can give, with the target's own weights."""
_TEXT = """\
# A draft and a target that go together, as rsd pair found them. With "judge" the target says whether each step is right. Nobody has
# measured what that is worth for these two. This does, with questions of yours, and chooses a threshold:
#   rsd tune --trio FILE --data questions.jsonl --best
# For code with examples in the question, running it is the better reward: reward_kind = "verifier" and verifier = "python-tests".
reward_kind = "{reward}"
draft.path = {draft}
target.path = {target}
"""


def write_trio(file: Path, draft: str, target: str, *, force: bool = False) -> None:
    """Writes a trio's file.

    Args:
        file: which; what is there already is kept.
        draft: the draft's path, or ``ollama:NAME``.
        target: the target's.
        force: write over a file that is there.

    Raises:
        ConfigError: it is there already, or cannot be written.
    """
    paths = {name: tomlkit.item(path).as_string() for name, path in (("draft", draft), ("target", target))}
    try:
        text = _TEXT.format(reward=REWARD, **paths).encode()
        with file.open("wb" if force else "xb") as out:
            out.write(text)
    except FileExistsError:
        raise ConfigError(f"{file} is there already", hint="--force writes over it") from None
    except UnicodeEncodeError:
        raise ConfigError(f"{file} cannot be written: a model's path has bytes that are no text", hint="rename that model's file") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}", hint="give another file") from None
