"""The chat window of examples/desktop, on a screen of its own: it writes, stops, stays responsive and closes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.skipif(shutil.which("Xvfb") is None, reason="Xvfb is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("_tkinter") is None, reason="this Python was built without Tk"),
]

DRIVER = """
import os, signal, subprocess, sys, time, traceback
import tkinter as tk
sys.path.insert(0, {folder!r})
import chat

beats = 0

def heart():
    global beats
    beats += 1
    root.after(20, heart)

def models():
    return window.reasoner._models._held.backend.pid

def failed(kind, error, trace):
    traceback.print_exception(kind, error, trace)
    os._exit(4)

def when(holds, then, seconds=240):
    deadline = time.monotonic() + seconds
    def look():
        if holds():
            then()
        elif time.monotonic() > deadline:
            print("not in time:", holds.__name__, repr(shown()), flush=True)
            os._exit(3)
        else:
            root.after(20, look)
    look()

def shown():
    return window.text.get("1.0", "end")

def picture(name):
    root.update()
    folder = os.environ.get("RSD_PICTURES")
    if folder:
        file = os.path.join(folder, name + ".png")
        subprocess.run(["import", "-window", "root", "-crop", "760x620+0+0", "+repage", "-colors", "48", file], check=True)

def type_in(text):
    window.entry.delete(0, "end")
    window.entry.insert(0, text)
    window.ask()

def loaded():
    return window.reasoner is not None
def idle():
    return str(window.button["text"]) == "Ask"
def writing():
    return bool(window.text.tag_ranges("pending")) or "draft" in shown() or "target" in shown()

{play}

if __name__ == "__main__":
    root = tk.Tk()
    root.report_callback_exception = failed
    window = chat.Window(root, "abacus")
    heart()
    when(loaded, begin)
    root.mainloop()
    print("closed", flush=True)
"""

ANSWERS = """
def begin():
    type_in("(37+48)*6-129")
    pid, before = models(), beats
    os.kill(pid, signal.SIGSTOP)
    def still_alive():
        return beats > before + 10  # for ever not, where the window waits for the models
    def go_on():
        os.kill(pid, signal.SIGCONT)
        when(idle, refused)
    when(still_alive, go_on)

def refused():
    text = shown()
    assert "answer: 381" in text and "510-129=381" in text, text
    assert "rejected" in text and window.text.tag_ranges("target") and window.text.tag_ranges("draft"), text
    assert not window.text.tag_ranges("pending")
    type_in("Who was Gauss?")
    when(idle, lower)

def lower():
    assert window.text.tag_ranges("error"), shown()
    window.threshold.set(0.0)
    before = shown().count("target")
    def done():
        assert "answer" in shown() and shown().count("target") == before, "at threshold 0 the draft writes alone"
        picture("chat")
        window.close()
    type_in("12*9-44")
    when(idle, done)
"""

STOPS = """
def begin():
    type_in("(3+4)*5-6+7*2")
    window.stop.cancel()
    when(idle, again)

def again():
    assert "stopped" in shown() or "answer" in shown(), shown()
    type_in("(37+48)*6-129")
    when(writing, hang)

def hang():
    os.kill(models(), signal.SIGSTOP)  # in the middle of an answer
    window.close()
"""

LEAVES = """
def begin():
    raise AssertionError("it was closed before")

def early():
    window.close()

_mainloop = tk.Tk.mainloop
def mainloop(self):
    self.after(300, early)
    _mainloop(self)
tk.Tk.mainloop = mainloop
"""


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    reader, writer = os.pipe()
    with os.fdopen(reader) as told:
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writer), "-screen", "0", "900x700x24", "-nolisten", "tcp"],
            pass_fds=[writer],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(writer)
        number = told.readline().strip()
    try:
        assert number, "Xvfb did not start"
        yield f":{number}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.parametrize("play", ["ANSWERS", "STOPS", "LEAVES"])
def test_the_window_writes_stops_and_closes_and_leaves_nothing_behind(tmp_path: Path, screen: str, play: str) -> None:
    script = tmp_path / "drive.py"
    script.write_text(DRIVER.replace("{folder!r}", repr(str(ROOT / "examples" / "desktop"))).replace("{play}", globals()[play]))
    environment = os.environ | {"DISPLAY": screen, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    before = {one.pid for one in psutil.Process().children(recursive=True)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, timeout=500)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "closed"
    assert {one.pid for one in psutil.Process().children(recursive=True)} <= before
