"""The sandbox: programs that try to get out of it, by each backend that works on this machine."""

from __future__ import annotations

import glob
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sandbox_support import NOBODY, ROOT, holds, processes_with, run_by

from rsd_local.errors import Cancelled, ConfigError, SandboxTooWeak
from rsd_local.events import CancelToken
from rsd_local.sandbox import Bounds, Outcome, Protection, Sandbox, python
from rsd_local.sandbox import sandbox as module
from rsd_local.sandbox.bounds import ONE_THREAD

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what holds on other systems was not tried")

SHORT = Bounds(seconds=2.0)


@pytest.fixture(params=["bubblewrap", "namespaces", "limits"], scope="module")
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox of each backend; it leaves no folder and no process."""
    try:
        found = Sandbox.with_backend(request.param)
    except SandboxTooWeak as error:
        pytest.skip(str(error))
    before = folders()
    yield found
    assert folders() <= before
    assert not processes_with("launcher.py", parent=os.getpid())


@pytest.fixture
def mark() -> Iterator[str]:
    """A word by which processes are found on the machine; none is left at the end."""
    word = f"mark-{uuid.uuid4()}"
    yield word
    assert not processes_with(word)


def folders() -> set[str]:
    return set(glob.glob(os.path.join(tempfile.gettempdir(), "rsd-sandbox-*")))


def run(box: Sandbox, code: str, *arguments: str, bounds: Bounds = Bounds(), **more: object) -> Outcome:  # noqa: B008
    return box.run(python(["-c", code, "{pipe}", *arguments]), bounds=bounds, **more)  # type: ignore[arg-type]


TRY = """
import os, sys
def tell(*what):
    os.write(int(sys.argv[1]), (" ".join(map(str, what)) + "\\n").encode())
def try_(attempt):
    try:
        tell("done", attempt())
    except BaseException as error:
        tell("failed", type(error).__name__)
"""


# What it is for


def test_a_program_gets_its_files_and_its_input_and_nothing_of_the_environment(box: Sandbox) -> None:
    code = (
        TRY
        + "tell(open('a/b.txt').read(), sys.stdin.read(), sorted(os.environ), os.listdir())\nprint('out')\nprint('err', file=sys.stderr)"
    )
    os.environ["OF_THE_USER"] = "secret"
    done = run(box, code, files={"a/b.txt": b"content"}, told=b"told")
    assert done.ended == "exited" and done.exit_code == 0, done.stderr
    assert done.said.decode() == f"content told {sorted(['HOME', 'LANG', 'PATH', 'TMPDIR', *ONE_THREAD])} ['a']\n"
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_it_holds_no_descriptor_but_its_own(box: Sandbox) -> None:
    with tempfile.TemporaryFile() as ours:
        os.set_inheritable(ours.fileno(), True)
        done = run(
            box, TRY + "tell([fd for fd in map(int, os.listdir('/proc/self/fd')) if os.path.exists(f'/proc/self/fd/{fd}')], sys.argv[1])"
        )
    fds, _, own = done.said.decode().strip().rpartition(" ")
    assert fds == str([0, 1, 2, int(own)])


def test_a_long_input_goes_in_while_a_long_output_comes_out(box: Sandbox) -> None:
    text = os.urandom(3 << 20)
    code = "import sys\nwhile data := sys.stdin.buffer.read(1 << 16): sys.stdout.buffer.write(data)"
    assert run(box, code, told=text, bounds=Bounds(output_bytes=4 << 20)).stdout == text


def test_input_that_nobody_reads_holds_nothing_up(box: Sandbox) -> None:
    assert run(box, "import os; os.close(0)", told=bytes(1 << 20)).exit_code == 0


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit(137)", 137),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.abort()", -6),
    ],
)
def test_exit_codes_and_signals_are_told_apart(box: Sandbox, code: str, expected: int) -> None:
    assert run(box, code).exit_code == expected


def test_a_program_that_is_not_there_says_so(box: Sandbox) -> None:
    done = box.run(["no-such-program"])
    assert (done.exit_code, done.stderr) == (127, b"no-such-program cannot be started: No such file or directory\n")


def test_no_room_for_temporary_files_is_one_clear_line(box: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    with pytest.raises(SandboxTooWeak, match="could not be confined: .*not there"):
        box.run(python(["-c", "pass"]))


def test_many_run_at_once(box: Sandbox) -> None:
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda i: run(box, TRY + f"tell({i}, len(os.listdir('.')))", files={str(i): b""}), range(24)))
    assert [outcome.said for outcome in done] == [b"%d 1\n" % i for i in range(24)]


def test_installed_packages_can_be_imported_where_that_is_asked_for(box: Sandbox) -> None:
    code = "import os, numpy; print(numpy.ones(3).sum(), (numpy.eye(300) @ numpy.eye(300)).sum(), len(os.listdir('/proc/self/task')))"
    bounds = Bounds(seconds=30)  # with threads for each core, neither the memory nor the processes of many cores would be enough
    assert box.run(python(["-c", code], packages=True), bounds=bounds).stdout == b"3.0 300.0 1\n"
    assert box.run(python(["-c", code]), bounds=bounds).exit_code == 1


# Limits


def test_a_fork_bomb_ends_and_stays_small(box: Sandbox, mark: str) -> None:
    if not holds(box, "processes"):
        return
    bomb = TRY + "while True:\n try:\n  if os.fork() == 0: tell('child')\n except OSError: pass"
    done = run(box, bomb, mark, bounds=Bounds(seconds=1.5, processes=16))
    assert done.ended == "time" and 1 <= done.said.count(b"child") <= 15


def test_as_many_processes_as_allowed_and_no_more(box: Sandbox) -> None:
    if not holds(box, "processes"):
        return
    code = TRY + "import time\nfor _ in range(40):\n if os.fork() == 0: time.sleep(30); os._exit(0)\n tell('child')"
    done = run(box, code, bounds=Bounds(processes=8))
    assert done.exit_code == 1 and b"BlockingIOError" in done.stderr
    assert done.said.count(b"child") == 7 or box.backend == "limits"  # where other programs of this user count too


def test_ten_gigabytes_are_not_to_be_had(box: Sandbox) -> None:
    done = run(box, TRY + "try_(lambda: len(bytearray(10 << 30)))")
    assert done.said == b"failed MemoryError\n"


@pytest.mark.parametrize("where", ["1", "2", "int(sys.argv[1])"])
def test_endless_output_ends_the_program(box: Sandbox, where: str, mark: str) -> None:
    done = run(box, f"import os, sys\nwhile True: os.write({where}, b'x' * 4096)", mark, bounds=Bounds(output_bytes=10_000))
    assert done.ended == "output" and done.exit_code is None
    assert max(len(done.stdout), len(done.stderr), len(done.said)) == 10_000


def test_an_endless_loop_ends_in_time_and_what_was_said_stays(box: Sandbox, mark: str) -> None:
    began = time.monotonic()
    done = run(box, TRY + "tell('here')\nwhile True: pass", mark, bounds=Bounds(seconds=0.7))
    assert done.ended == "time" and done.exit_code is None and done.said == b"here\n"
    assert 0.7 <= time.monotonic() - began < 3


def test_a_program_that_ignores_signals_ends_too(box: Sandbox, mark: str) -> None:
    code = "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: time.sleep(9)"
    assert run(box, code, mark, bounds=Bounds(seconds=0.7)).ended == "time"


def test_a_large_file_is_cut(box: Sandbox) -> None:
    done = run(
        box, TRY + "try_(lambda: open('f', 'wb', 0).write(bytes(8 << 20)))\ntell(os.path.getsize('f'))", bounds=Bounds(file_bytes=1 << 20)
    )
    assert done.said in (b"done 1048576\n1048576\n", b"failed OSError\n1048576\n")


@pytest.mark.parametrize("folder", [".", "/tmp", "/dev/shm"])
def test_many_files_do_not_fill_the_disk(box: Sandbox, folder: str) -> None:
    if not holds(box, "disk"):
        return
    code = TRY + f"try_(lambda: [open('{folder}/f%d' % i, 'wb').write(bytes(1 << 20)) for i in range(200)])"
    free = os.statvfs(tempfile.gettempdir()).f_bavail
    assert run(box, code, bounds=Bounds(file_bytes=2 << 20)).said == b"failed OSError\n"
    assert abs(os.statvfs(tempfile.gettempdir()).f_bavail - free) * 4096 < 100 << 20


# Ways out


def test_nothing_outside_is_written(box: Sandbox, tmp_path: Path) -> None:
    if not holds(box, "files"):
        return
    name = f"escaped-{uuid.uuid4()}"
    shared = Path(tempfile.gettempdir())
    places = [
        ROOT,
        Path.home(),
        shared,
        tmp_path,
        Path("/etc"),
        Path("/usr/bin"),
        Path(sys.prefix, "lib"),
        Path(sys.base_prefix, "bin"),
        Path("/"),
    ]
    code = TRY + "for place in sys.argv[2:]: try_(lambda: open(place, 'w').close())"
    done = run(box, code, *(str(place / name) for place in places))
    assert done.exit_code == 0 and done.said.count(b"\n") == len(places)
    assert [str(place) for place in places if (place / name).exists()] == []
    assert done.said.count(b"done") == (1 if shared == Path("/tmp") else 0)  # its own /tmp


def test_files_of_the_user_are_not_read_unless_they_are_given(box: Sandbox, open_folder: Path) -> None:
    here, home = open_folder / "secret", Path.home() / f".secret-{uuid.uuid4()}"
    code = TRY + "for place in sys.argv[2:]: try_(lambda: open(place).read())"
    places = [str(here), str(home), "/etc/passwd", str(ROOT / "pyproject.toml"), f"/proc/{os.getpid()}/root{here}", f"/proc/1/root{here}"]
    try:
        for path in (here, home):
            path.write_text("secret")
        if holds(box, "files"):
            assert run(box, code, *places).said.count(b"failed") == len(places)
        assert run(box, code, str(here), readable=[here]).said == b"done secret\n"
        assert run(box, code, str(here), readable=[here.parent]).said == b"done secret\n"
        if holds(box, "files"):
            assert run(box, TRY + "try_(lambda: open(sys.argv[2], 'a'))", str(here), readable=[open_folder]).said.startswith(b"failed")
    finally:
        home.unlink()


def test_other_processes_are_neither_seen_nor_ended(box: Sandbox) -> None:
    if not holds(box, "user"):
        return
    code = TRY + "pid = int(sys.argv[2])\ntry_(lambda: open(f'/proc/{pid}/environ').read())\ntry_(lambda: os.kill(pid, 0))\n"
    code += "for n in (9, 15, 19): try_(lambda: os.kill(os.getppid(), n))\ntry_(lambda: os.kill(-1, 9) or 1 / 0)"
    with subprocess.Popen(["sleep", "60"], env={"SECRET": "1"}) as other:
        done = run(box, code, str(other.pid))
        assert other.poll() is None
        other.kill()
    lines = done.said.decode().splitlines()
    assert lines[0].startswith("failed") and lines[1].startswith("failed"), lines
    assert done.ended == "exited"


def test_how_it_ended_cannot_be_forged(box: Sandbox) -> None:
    if not holds(box, "user"):
        return
    code = "import os\nfor fd in range(3, 60):\n try: os.write(os.open(f'/proc/{os.getppid()}/fd/{fd}', os.O_WRONLY), b'0')\n"
    assert run(box, code + " except OSError: pass\nos._exit(5)").exit_code == 5


def test_a_server_of_this_machine_is_not_reached(box: Sandbox) -> None:
    if not holds(box, "network"):
        return
    name = f"\0{uuid.uuid4()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(name)
        local.listen()
        code = "import socket\n" + TRY + "try_(lambda: socket.create_connection(('127.0.0.1', int(sys.argv[2])), 2))\n"
        code += (
            "try_(lambda: socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[3]))\ntry_(lambda: socket.getaddrinfo('example.org', 80))"
        )
        done = run(box, code, str(server.getsockname()[1]), name[1:])
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()
    assert done.said.count(b"failed") == 3


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(int(sys.argv[1]), b"alive")
        time.sleep(60)  # it holds all pipes
    os._exit(0)
os.wait()
time.sleep(float(sys.argv[3]))
"""


def test_a_process_that_is_left_behind_is_gone_at_once(box: Sandbox, mark: str) -> None:
    began = time.monotonic()
    done = run(box, DAEMON, mark, "0.2")
    assert done.exit_code == 0 and done.said == b"alive" and time.monotonic() - began < 5
    assert not processes_with(mark)


def test_a_process_that_is_left_behind_is_gone_after_a_time_out(box: Sandbox, mark: str) -> None:
    done = run(box, DAEMON, mark, "60", bounds=Bounds(seconds=0.7))
    assert done.ended == "time" and done.said == b"alive"
    assert not processes_with(mark)


def test_a_program_that_closes_its_outputs_is_waited_for(box: Sandbox, mark: str) -> None:
    code = "import os, sys, time\nfor fd in (0, 1, 2, int(sys.argv[1])): os.close(fd)\ntime.sleep(0.3)\nos._exit(7)"
    assert run(box, code, mark).exit_code == 7


def test_a_program_that_ends_its_launcher_holds_nothing_up(box: Sandbox, mark: str) -> None:
    done = run(box, "import os, time; os.kill(os.getppid(), 9); time.sleep(60)", mark, bounds=SHORT)
    if holds(box, "end"):  # it may not, or the first process of a namespace does not listen
        assert done.exit_code == 1 or done.ended == "time"
    else:
        assert (done.ended, done.exit_code) == ("exited", -9)


def test_a_folder_that_its_program_closed_is_removed(box: Sandbox) -> None:
    code = "import os\nos.makedirs('a/b/c')\nopen('a/b/c/d', 'w').close()\nfor path in ('a/b/c', 'a/b', 'a', '.'): os.chmod(path, 0)"
    before = folders()
    run(box, code)
    assert folders() == before


# The caller's end


def test_a_cancel_from_another_thread_ends_it_at_once(box: Sandbox, mark: str) -> None:
    token = CancelToken()
    timer = threading.Timer(0.5, token.cancel)
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        run(box, DAEMON, mark, "60", cancel=token)
    assert time.monotonic() - began < 2
    timer.join()
    with pytest.raises(Cancelled):
        run(box, "pass", cancel=token)


def test_an_interrupt_of_the_caller_leaves_nothing(box: Sandbox, mark: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            run(box, DAEMON, mark, "60")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not processes_with(mark)


def test_a_caller_that_is_killed_leaves_nothing(box: Sandbox, mark: str, tmp_path: Path) -> None:
    code = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom rsd_local.sandbox import Sandbox, python\n"
    code += f"Sandbox.with_backend({box.backend!r}).run(python(['-c', sys.argv[1], '{{pipe}}', 'mark-' + sys.argv[2], '60']))"
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # a killed caller cannot remove its folder
    tmp_path.chmod(0o755)
    with subprocess.Popen([sys.executable, "-c", code, DAEMON, mark.removeprefix("mark-")], env=environment) as caller:
        wait_for(lambda: len(processes_with(mark)) >= 2)
        caller.kill()
    wait_for(lambda: not processes_with(mark))


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


# What is said of it


def test_what_does_not_hold_is_said(box: Sandbox) -> None:
    found = {protection.name: protection for protection in box.protections}
    assert list(found) == ["files", "network", "processes", "memory", "disk", "user", "time", "end"]
    if box.backend == "limits":
        assert not found["files"].holds and not found["network"].holds and not found["disk"].holds
        assert found["network"].how == "can reach the network and this machine's servers"
    else:
        assert all(protection.holds for protection in box.protections), box.protections
    assert found["memory"].holds and all(protection.how for protection in box.protections)


def test_the_strongest_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_found", [])
    found = Sandbox.find()
    began = time.monotonic()
    assert Sandbox.find() is found and time.monotonic() - began < 0.01
    names = [backend.name for backend in module._candidates()]
    for name in names[: names.index(found.backend)]:
        with pytest.raises(SandboxTooWeak):
            Sandbox.with_backend(name)


@pytest.mark.skipif(os.getuid() != 0, reason="it is about root")
def test_nothing_runs_as_root_with_limits_alone() -> None:
    """Such a program could end every process of the machine; where root's programs can get no user of their own, nothing runs."""
    assert all(backend.own_user for backend in module._candidates())


def test_strict_refuses_what_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    weak = Sandbox(None, (Protection("files", False, "open"), Protection("time", True, "short"), Protection("network", False, "open")))  # type: ignore[arg-type]
    monkeypatch.setattr(module, "_found", [weak])
    assert Sandbox.find() is weak
    with pytest.raises(SandboxTooWeak, match="files, network would not hold") as caught:
        Sandbox.find("strict")
    assert "bubblewrap" in caught.value.hint
    with pytest.raises(ConfigError, match="'strong' is unknown"):
        Sandbox.find("strong")  # type: ignore[arg-type]


def test_all_holds_for_a_user_who_is_not_root() -> None:
    code = """
from rsd_local.errors import SandboxTooWeak
from rsd_local.sandbox import Bounds, Sandbox, python
bomb = "import os, sys\\nwhile True:\\n try: os.fork() or os.write(int(sys.argv[1]), b'c')\\n except OSError: pass"
forge = "import os\\nfor fd in range(3, 60):\\n try: os.write(os.open(f'/proc/1/fd/{fd}', os.O_WRONLY), b'0')\\n"
forge += " except OSError: pass\\nos._exit(5)"
for name in ("bubblewrap", "namespaces"):
    try:
        box = Sandbox.with_backend(name)
    except SandboxTooWeak as error:
        print(name, "is not there:", error)
        continue
    assert all(one.holds for one in box.protections), box.protections
    done = box.run(python(["-c", bomb, "{pipe}"]), bounds=Bounds(seconds=1.0, processes=16))
    assert done.ended == "time" and 1 <= len(done.said) <= 15, done
    assert box.run(python(["-c", forge])).exit_code == 5
    print(name, "holds")
"""
    said = run_by(NOBODY, code)
    assert len(said) == 2
    for line in said:
        name, outcome = line.split(" ", 1)
        assert outcome == "holds" or outcome.startswith("is not there"), line
    if os.getuid() == 0:
        assert "namespaces holds" in said


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a program a user of its own")
def test_limits_alone_hold_more_with_a_user_of_its_own(mark: str) -> None:
    code = f"""
import os
from rsd_local.sandbox import Bounds, Sandbox, python
box = Sandbox.with_backend("limits")
print(*(one.name for one in box.protections if not one.holds))
bomb = "import os, sys\\nwhile True:\\n try: os.fork() or os.write(int(sys.argv[1]), b'c')\\n except OSError: pass"
done = box.run(python(["-c", bomb, "{{pipe}}", {mark!r}]), bounds=Bounds(seconds=1.0, processes=16))
print(done.ended, 1 <= len(done.said) <= 15)
kill = "import os\\ntry: os.kill(os.getppid(), 9)\\nexcept PermissionError: os._exit(5)"
print(box.run(python(["-c", kill])).exit_code)
print(box.run(python(["-c", {DAEMON!r}, "{{pipe}}", {mark!r}, "0.1"])).exit_code)
"""
    assert run_by(0, code) == ["files network disk", "time True", "5", "0"]
    assert not processes_with(mark)


@pytest.mark.skipif(os.getuid() != 0, reason="a distribution may allow user namespaces to bubblewrap alone")
def test_without_bubblewrap_namespaces_hold_as_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_found", [])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Sandbox.find().backend == "namespaces"
    with pytest.raises(SandboxTooWeak, match="bubblewrap is not installed"):
        Sandbox.with_backend("bubblewrap")


# What is refused, and other systems


@pytest.mark.parametrize(
    "values", [{"seconds": 0}, {"seconds": float("inf")}, {"memory": 1}, {"processes": 0}, {"file_bytes": -1}, {"output_bytes": -1}]
)
def test_bounds_that_cannot_be_kept_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Bounds(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", ".", "/etc/x", "../x", "a/../../x", "a\\b", "C:x", "a\0b"])
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no name of a file"):
        Sandbox.find().run(["true"], files={name: b""})


def test_paths_that_cannot_be_shown_are_refused(tmp_path: Path) -> None:
    box = Sandbox.find()
    for path in (Path("/"), Path("/tmp"), Path("/proc"), tmp_path / "missing"):
        with pytest.raises(ConfigError, match="in a sandbox"):
            box.run(["true"], readable=[path])
    if os.getuid() == 0 and holds(box, "user"):
        tmp_path.chmod(0o700)
        with pytest.raises(ConfigError, match="by its owner alone"):
            box.run(["true"], readable=[tmp_path])


def test_the_package_imports_where_there_is_nothing_of_posix() -> None:
    code = "import sys\nfor name in ('resource', 'pwd', 'fcntl', 'grp', 'termios'): sys.modules[name] = None\n"
    code += (
        "import rsd_local.sandbox, rsd_local.sandbox.windows, rsd_local.sandbox.macos, rsd_local.sandbox.backends, rsd_local.sandbox.posix"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_profile_of_macos_opens_only_what_is_shown() -> None:
    from rsd_local.sandbox.macos import profile

    text = profile(["/opt/python", '/Users/me/a "b"'], "/private/tmp/work")
    assert "(deny network*)" in text and "(deny file-write*)" in text and '(subpath "/Users/me/a \\"b\\"")' in text
    assert text.count("(") == text.count(")") and text.index("(deny file-write*)") < text.index("(allow file-write*")
    (allowed,) = [line for line in text.splitlines() if line.startswith("(allow file-write*")]
    assert allowed == '(allow file-write* (subpath "/private/tmp/work") (literal "/dev/null"))'


def test_the_job_object_of_windows_has_the_bounds() -> None:
    import ctypes

    from rsd_local.sandbox.windows import PROTECTIONS, JobLimits, extended

    limits = JobLimits.of(Bounds(memory=123 << 20, processes=7))
    assert limits == JobLimits(0x8 | 0x100 | 0x400 | 0x2000, 7, 123 << 20)
    assert extended(limits).basic.processes == 7 and extended(limits).process_memory == 123 << 20
    assert ctypes.sizeof(extended(limits)) == (144 if ctypes.sizeof(ctypes.c_void_p) == 8 else 112)
    assert {one.name for one in PROTECTIONS if not one.holds} == {"files", "network", "disk", "user"}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may read, below no closed one."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
