"""Keys of servers: from a variable or a file, and nowhere else to be seen."""

from __future__ import annotations

import os

from rsd_local.config import RemoteRole
from rsd_local.errors import ConfigError
from rsd_local.text_files import read_text


def read_key(role: RemoteRole) -> str:
    """The key of a role's server, empty where it has none.

    Raises:
        ConfigError: the variable is not set, the file cannot be read, or what they hold is no key. The key is in no message.
    """
    if role.api_key_env:
        origin, text = f"variable {role.api_key_env}", os.environ.get(role.api_key_env, "")
    elif role.api_key_file is not None:
        origin, text = str(role.api_key_file), read_text(role.api_key_file, hint="name the file that holds the key")
    else:
        return ""
    key = next(iter(text.strip().splitlines()), "").strip()
    if not key:
        raise ConfigError(f"{origin} holds no key for {role.url}", hint="set it, or take the setting out")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(f"what {origin} holds is no key for {role.url}", hint="a key is one line of ASCII characters without spaces")
    return key
