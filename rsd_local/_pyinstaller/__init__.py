"""Hooks for PyInstaller, which finds them by the entry point ``pyinstaller40``: a frozen application has all that rsd_local loads."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """The folder that PyInstaller looks for hooks in."""
    return [str(Path(__file__).parent)]
