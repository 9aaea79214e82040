"""Limits of the process: what it may not use is neither counted on nor told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from test_cli import rsd

from rsd_local import Reasoner, machine, read_trio
from rsd_local.catalogue import find_trio
from rsd_local.errors import ConfigError, DoesNotFit
from rsd_local.machine import Machine

GB = 10**9
V2 = "0::{path}\n"
V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1_MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def write(root: Path, files: dict[str, str]) -> Path:
    """Writes files below a folder that stands for the root of the file system."""
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def second(root: Path, path: str, files: dict[str, str], mounted: str = "/") -> Machine:
    """What is read where cgroup v2 holds; files are named below its mount."""
    table = {"proc/self/cgroup": V2.format(path=path), "proc/self/mountinfo": V2_MOUNT.format(root=mounted)}
    return Machine.read(write(root, table | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}))


def test_without_cgroups_the_machine_is_what_counts(tmp_path: Path) -> None:
    made = Machine.read(tmp_path)
    assert made.quota is None and made.memory_limit is None and made.memory == psutil.virtual_memory().total
    assert 0 < made.free <= made.memory and 1 <= made.threads == made.usable_cores <= made.cores


def test_the_smallest_limit_on_the_path_counts(tmp_path: Path) -> None:
    made = second(
        tmp_path,
        "/user/pod/app",
        {
            "user/pod/app/cpu.max": "max 100000\n",
            "user/pod/cpu.max": "150000 100000\n",
            "user/cpu.max": "400000 100000\n",
            "user/pod/app/memory.max": f"{5 * GB}\n",
            "user/pod/memory.high": f"{2 * GB}\n",
            "user/pod/memory.max": "max\n",
            "user/memory.max": f"{3 * GB}\n",
            "other/memory.max": "1000\n",
            "other/cpu.max": "1000 100000\n",
        },
    )
    assert made.quota == 1.5 and made.threads == 1
    assert made.memory_limit == 2 * GB and made.free <= 2 * GB


def test_what_is_used_up_is_not_free_and_cached_files_are(tmp_path: Path) -> None:
    limits = {"app/memory.max": f"{4 * GB}", "app/memory.current": f"{3 * GB}"}
    stat = f"anon {GB}\nfile {2 * GB}\ninactive_file {GB}\nactive_file {GB // 2}\n"
    made = second(tmp_path, "/app", limits | {"app/memory.stat": stat})
    assert made.free == min(4 * GB - (3 * GB - GB - GB // 2), psutil.virtual_memory().total)
    assert second(tmp_path / "over", "/app", limits | {"app/memory.current": f"{5 * GB}"}).free == 0


@pytest.mark.parametrize(("quota", "threads"), [("20000 100000", 1), ("100000 100000", 1), ("max 100000", None), ("1000000 100000", None)])
def test_a_quota_of_less_than_a_cpu_is_one_thread(tmp_path: Path, quota: str, threads: int | None) -> None:
    made = second(tmp_path, "/", {"cpu.max": quota})
    assert made.threads == (threads or made.usable_cores)


def test_the_first_version_of_cgroups_is_read_too(tmp_path: Path) -> None:
    unlimited = 9223372036854771712
    made = Machine.read(
        write(
            tmp_path,
            {
                "proc/self/cgroup": "12:cpu,cpuacct:/pod/app\n4:memory:/pod/app\n1:name=systemd:/\n0::/\n",
                "proc/self/mountinfo": V1_MOUNTS.format(root="/"),
                "sys/fs/cgroup/cpu,cpuacct/pod/app/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/pod/app/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{unlimited}\n",
                "sys/fs/cgroup/memory/pod/memory.limit_in_bytes": f"{3 * GB}\n",
                "sys/fs/cgroup/memory/pod/memory.usage_in_bytes": f"{2 * GB}\n",
                "sys/fs/cgroup/memory/pod/memory.stat": f"inactive_file 0\ntotal_inactive_file {GB}\ntotal_active_file 0\n",
                "sys/fs/cgroup/memory/pod/app/memory.limit_in_bytes": f"{unlimited}\n",
            },
        )
    )
    assert (made.quota, made.threads, made.memory_limit) == (0.5, 1, 3 * GB)
    assert made.free == min(2 * GB, psutil.virtual_memory().available)


def test_in_a_container_the_mount_shows_a_part_of_the_path(tmp_path: Path) -> None:
    for number, (path, mounted) in enumerate(
        [
            ("/docker/abc/app", "/docker/abc"),  # the mount begins at the container's cgroup
            ("/app", "/"),  # with a namespace of its own
        ]
    ):
        made = second(tmp_path / str(number), path, {"app/memory.max": f"{GB}", "memory.max": "max"}, mounted)
        assert made.memory_limit == GB, path
    # A path that is not below the mount, or leads out of the namespace: the mount's own limits hold.
    for number, (path, mounted) in enumerate([("/docker/abcdef", "/docker/abc"), ("/../other", "/")], 2):
        made = second(tmp_path / str(number), path, {"memory.max": f"{2 * GB}", "ef/memory.max": f"{GB}"}, mounted)
        assert made.memory_limit == 2 * GB, path


@pytest.mark.parametrize("text", ["", "max", "many", "-1 0", "100000", "100000 0", "1e5 1e5", "\0"])
def test_what_cannot_be_read_is_no_limit(tmp_path: Path, text: str) -> None:
    made = second(tmp_path, "/app", {"app/cpu.max": text, "app/memory.max": "?", "app/memory.stat": "file"})
    assert made.memory_limit is None and (made.quota is None or text == "100000") and made.free > 0


def test_the_second_thread_of_a_core_is_no_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 32 if logical else 16)
    for cpu in range(8):  # CPU n and n + 4 are one core
        folder = f"sys/devices/system/cpu/cpu{cpu}/topology"
        write(tmp_path, {f"{folder}/physical_package_id": f"{cpu % 4 // 2}\n", f"{folder}/core_id": f"{cpu % 2}\n"})
    for cpus, cores in (({0, 4}, 1), ({0, 1}, 2), (set(range(8)), 4), ({0, 30, 31}, 3)):
        monkeypatch.setattr(machine, "allowed_cpus", lambda cpus=cpus: frozenset(cpus))
        made = Machine.read(tmp_path)
        assert (made.cores, made.usable_cores, made.threads) == (16, cores, cores)


def test_systems_without_affinity_have_all_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(psutil.Process, "cpu_affinity", raising=False)
    assert machine.allowed_cpus() == frozenset(range(psutil.cpu_count() or 1))


@pytest.mark.skipif(shutil.which("taskset") is None, reason="no taskset")
def test_a_process_on_one_cpu_has_engines_of_one_thread_and_says_so() -> None:
    taskset, first = str(shutil.which("taskset")), str(min(os.sched_getaffinity(0)))
    code = "from rsd_local import Reasoner, read_trio\nfrom rsd_local.catalogue import find_trio\nfrom dataclasses import replace\n"
    code += "trio = find_trio('abacus').with_models(lambda one: replace(one, threads=0))\n"
    code += "with Reasoner.open(trio) as made: print({engine.threads for engine in made.engines().values()})"
    done = subprocess.run([taskset, "-c", first, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{1}\n"
    code = "from rsd_local.cli import main; main(['doctor', *{}])"
    said = [
        subprocess.run([taskset, "-c", first, sys.executable, "-c", code.format(flags)], capture_output=True, text=True, check=True).stdout
        for flags in ([], ["--json"])
    ]
    cpu = json.loads(said[1])["cpu"]
    assert (cpu["allowed"], cpu["threads"]) == (1, 1)
    assert cpu["cores"] == 1 or f"cpu        1 of {cpu['cores']} cores allowed: 1 thread;" in said[0]


@pytest.mark.skipif(sys.platform != "linux", reason="no address space limit that holds")
def test_a_limit_of_the_address_space_is_a_limit_of_memory() -> None:
    import resource

    limit = 3 * GB
    code = "import json; from dataclasses import asdict; from rsd_local.machine import Machine; print(json.dumps(asdict(Machine.read())))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    made = json.loads(done.stdout)
    assert made["memory_limit"] == limit and made["free"] < limit


def test_a_trio_that_the_limit_has_no_room_for_is_refused_unless_the_check_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    trio, small = find_trio("abacus"), Machine(16, 2, None, 64 * GB, 500_000_000, 4_000_000)
    monkeypatch.setattr(Machine, "read", classmethod(lambda cls: small))
    loaded: list[str] = []
    with pytest.raises(DoesNotFit, match=r"of memory and 0\.0 GB of the 0\.5 GB that this process may have are free") as caught:
        Reasoner.open(trio, lambda role, share: loaded.append(role))
    assert caught.value.hint.endswith("; --no-fit-check loads it anyway") and not loaded
    with Reasoner.open(replace(trio, fit_check=False)) as opened:
        assert opened.solve("1+1").answer == "2"


def test_the_flag_leaves_the_check_out_and_a_file_can_too(tmp_path: Path) -> None:
    refused = rsd("solve", "1+1", "-c", "2000000000")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and "--no-fit-check" in refused.stderr
    assert rsd("solve", "1+1", "--no-fit-check").stdout == "2\n"
    file = tmp_path / "own.toml"
    for text, value in (("", True), ("fit_check = false\n", False)):
        file.write_text(f'{text}reward_kind = "confidence"\n' + '[draft]\npath = "d.gguf"\n[target]\npath = "t.gguf"\n')
        assert read_trio(file).fit_check is value
    file.write_text(file.read_text().replace("false", '"no"'))
    with pytest.raises(ConfigError, match="fit_check = 'no' is not of the right kind"):
        read_trio(file)
