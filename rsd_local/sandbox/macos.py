"""The profile for ``sandbox-exec`` of macOS; it was not tried there by us."""

from __future__ import annotations

from collections.abc import Sequence


def profile(shown: Sequence[str], folder: str) -> str:
    """A profile that forbids the network, writing outside of a folder, and reading what belongs to users.

    Args:
        shown: folders and files that may be read, though they lie below a forbidden one.
        folder: where the program works, the only one that it may write.
    """
    readable = "".join(f"\n  (subpath {_quoted(path)})" for path in (*shown, folder))
    return f"""(version 1)
(allow default)
(deny network*)
(deny file-write*)
(deny file-read* (subpath "/Users") (subpath "/Volumes") (subpath "/private/tmp") (subpath "/private/var/folders"))
(deny mach-lookup)
(deny signal (target others))
(allow file-read* {readable})
(allow file-write* (subpath {_quoted(folder)}) (literal "/dev/null"))
"""


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
