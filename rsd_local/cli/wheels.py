"""Which build of llama-cpp-python uses the devices of this machine: prebuilt wheels of its maintainer, or compiled here.

Indexes: https://github.com/abetlen/llama-cpp-python#installation (cpu, cu118, cu121 to cu125, cu130, cu132, metal, rocm72,
vulkan). Not each has a wheel of each version and system: ``--only-binary`` then fails at once, where pip would compile.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsd_local.runtime.devices import Device

INDEX = "https://abetlen.github.io/llama-cpp-python/whl"
CUDA_INDEXES = {(11, 8): "cu118", **{(12, minor): f"cu12{minor}" for minor in range(1, 6)}, (13, 0): "cu130", (13, 2): "cu132"}
_OPTIONS = {"CUDA": "-DGGML_CUDA=on", "Metal": "-DGGML_METAL=on", "ROCm": "-DGGML_HIP=on", "Vulkan": "-DGGML_VULKAN=on"}
_PIP = "pip install --force-reinstall --no-deps --no-cache-dir"


def advice(found: Sequence[Device]) -> list[str]:
    """The install lines for each kind of device that is there and that this build cannot use: a wheel's, and the compiler's.

    Args:
        found: devices that the build can use.
    """
    if any(device.kind == "gpu" for device in found):
        return []
    lines, package = [], requirement()
    for name, index in _there().items():
        lines.append(f"{name}: {_PIP} --only-binary llama-cpp-python --extra-index-url {INDEX}/{index} '{package}'")
        lines.append(f"{name}, compiled here: CMAKE_ARGS=\"{_OPTIONS[name]}\" {_PIP} --no-binary llama-cpp-python '{package}'")
    return lines


def requirement() -> str:
    """What this package needs of llama-cpp-python, as pip takes it."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for line in importlib.metadata.requires("rsd-local") or ():
            if line.startswith("llama-cpp-python"):
                return line.partition(";")[0].strip()
    return "llama-cpp-python"


def cuda_index(driver: tuple[int, int] | None) -> str:
    """The index for a driver: the newest CUDA that it runs; a driver runs every minor version of its own CUDA.

    Args:
        driver: the newest CUDA version that it knows, major and minor; None where nobody can tell.
    """
    if driver is None:
        return "cu124"
    same = [version for version in CUDA_INDEXES if version[0] == driver[0]]
    older = [version for version in same or CUDA_INDEXES if version <= driver]
    return CUDA_INDEXES[max(older) if older else min(same or CUDA_INDEXES)]


def _there() -> dict[str, str]:
    """The kinds of devices that are there, with the index for each."""
    if sys.platform == "darwin":
        return {"Metal": "metal"} if platform.machine() == "arm64" else {}
    found = {}
    driver = _driver()
    if driver is not None or shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists():
        found["CUDA"] = cuda_index(driver)
    if shutil.which("rocminfo") or Path("/dev/kfd").exists():
        found["ROCm"] = "rocm72"
    card = sys.platform == "win32" or any(Path("/dev/dri").glob("renderD*"))  # the loader alone is on machines without one too
    if not found and card and _loads("vulkan-1.dll" if sys.platform == "win32" else "libvulkan.so.1"):
        found["Vulkan"] = "vulkan"
    return found


def _driver() -> tuple[int, int] | None:
    """The newest CUDA version that NVIDIA's driver knows, from its library or its tool; None without a driver that answers."""
    library, version = _loads("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"), ctypes.c_int()
    if library is not None:
        with contextlib.suppress(AttributeError):
            if library.cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value:
                return version.value // 1000, version.value % 1000 // 10
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        said = subprocess.run([tool], stdin=subprocess.DEVNULL, capture_output=True, timeout=10).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"CUDA(?: UMD)? Version: *(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else None


def _loads(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
