"""A chat window: who writes each step, how the reward scores it, and a stop button that works.

pip install rsd-local
python examples/desktop/chat.py [TRIO]      # a name from "rsd list", or a TOML file; abacus, which does arithmetic, without one

Made with Tk, which comes with Python: nothing has to be installed, and coloured text, a slider and a
button need no more. PySide6 looks more at home on macOS and has rich text of its own, for a download of 84 MB.

The models live in a process of their own (``isolated=True``): what ends llama.cpp does not end the window. Only the main thread
touches Tk. A thread loads the models, another one reads the events of an answer; both put what they have into a queue, which the
window empties 30 times a second. So it never waits for a model.
"""

from __future__ import annotations

import multiprocessing
import queue
import sys
import threading
import tkinter as tk
from collections.abc import Callable
from dataclasses import replace
from tkinter import font, ttk
from typing import Any

from rsd_local import CancelToken, Finished, Params, Reasoner, RSDError, StepDone, TextWritten, Weighting

BACKGROUND, INK, QUIET = "#ffffff", "#1f2328", "#8b949e"
COLOURS = {"draft": "#1a7f37", "target": "#bc4c00"}
TICK, AT_ONCE = 33, 200  # milliseconds between two looks at the queue, and how much of it is shown at one


class Window:
    """The window, and what goes on behind it.

    Args:
        root: Tk's.
        trio: a name, or a file.
    """

    def __init__(self, root: tk.Tk, trio: str) -> None:
        self.root, self.news = root, queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]]()
        self.reasoner: Reasoner | None = None
        self.stop, self.closing = CancelToken(), False
        self.pending = ""  # the author whose unfinished step is at the end, in grey
        self._build(trio)
        self._work(self._load, trio)
        root.protocol("WM_DELETE_WINDOW", self.close)
        root.after(TICK, self._tick)

    def _build(self, trio: str) -> None:
        self.root.title(f"rsd – {trio}")
        self.root.geometry("760x620")
        self.root.minsize(360, 320)
        self.root.configure(background=BACKGROUND)
        ttk.Style().theme_use("clam")
        for name in ("TFrame", "TLabel", "Horizontal.TScale"):
            ttk.Style().configure(name, background=BACKGROUND, foreground=INK)
        ttk.Style().configure("Quiet.TLabel", foreground=QUIET)
        size = font.nametofont("TkDefaultFont").actual("size")
        family = font.nametofont("TkDefaultFont").actual("family")

        bottom = ttk.Frame(self.root, padding=12)
        bottom.pack(side="bottom", fill="x")
        bottom.columnconfigure(0, weight=1)
        self.entry = ttk.Entry(bottom, font=(family, size + 1))
        self.entry.grid(row=0, column=0, sticky="ew", ipady=4)
        self.entry.bind("<Return>", lambda _: self.ask())
        self.root.bind("<Escape>", lambda _: self.stop.cancel())
        self.button = ttk.Button(bottom, text="Ask", command=self.ask, width=8, state="disabled")
        self.button.grid(row=0, column=1, padx=(8, 0))
        line = ttk.Frame(bottom)
        line.grid(row=1, column=0, columnspan=2, sticky="ew", pady=(10, 0))
        ttk.Label(line, text="Threshold").pack(side="left")
        self.threshold = tk.DoubleVar(value=0.7)
        self.threshold.trace_add("write", lambda *_: self._show_threshold())
        ttk.Scale(line, from_=0, to=1, variable=self.threshold, length=180).pack(side="left", padx=8)
        self.number = ttk.Label(line, width=6)
        self.number.pack(side="left")
        self.status = ttk.Label(line, style="Quiet.TLabel", anchor="e")
        self.status.pack(side="right", fill="x", expand=True)
        self._show_threshold()

        frame = ttk.Frame(self.root)
        frame.pack(fill="both", expand=True)
        self.bar = ttk.Progressbar(frame, maximum=1.0)
        self.bar.pack(side="top", fill="x")
        scroll = ttk.Scrollbar(frame)
        scroll.pack(side="right", fill="y")
        self.text = tk.Text(
            frame, wrap="word", state="disabled", borderwidth=0, highlightthickness=0, padx=16, pady=12, spacing3=3, background=BACKGROUND,
            foreground=INK, font=(family, size + 1), yscrollcommand=scroll.set,
        )  # fmt: skip
        self.text.pack(fill="both", expand=True)
        scroll.configure(command=self.text.yview)
        for author, colour in COLOURS.items():
            self.text.tag_configure(author, foreground=colour)
        self.text.tag_configure("question", font=(family, size + 1, "bold"), spacing1=14, spacing3=8)
        self.text.tag_configure("pending", foreground=QUIET)
        self.text.tag_configure("small", foreground=QUIET, font=(family, size - 1), spacing3=8)
        self.text.tag_configure("rejected", foreground=QUIET, overstrike=True, font=(family, size - 1))
        self.text.tag_configure("error", foreground="#cf222e")
        self.entry.focus_set()

    def _show_threshold(self) -> None:
        self.number.configure(text=f"{self.threshold.get():.3f}")

    def _tick(self) -> None:
        """Show what came; the only place where threads reach Tk."""
        for _ in range(AT_ONCE):
            try:
                show, arguments = self.news.get_nowait()
            except queue.Empty:
                break
            show(*arguments)
        if self.closing and self.reasoner is None:
            self.root.destroy()
        else:
            self.root.after(TICK, self._tick)

    def _work(self, work: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _later(self, show: Callable[..., None], *arguments: Any) -> None:
        self.news.put((show, arguments))

    def _load(self, trio: str) -> None:
        """In a thread: open the models."""
        try:
            reasoner = Reasoner.open(trio, lambda role, share: self._later(self._loading, role, share), isolated=True, cancel=self.stop)
        except RSDError as error:
            self._later(self._failed, error)
        else:
            self._later(self._loaded, reasoner)

    def _loading(self, role: str, share: float) -> None:
        self.bar.configure(value=share)
        self.status.configure(text=f"loading the {role} model")

    def _loaded(self, reasoner: Reasoner) -> None:
        self.reasoner = reasoner
        self.bar.pack_forget()
        self.threshold.set(reasoner.config.threshold)
        self._ready("ready")
        if self.closing:
            self.close()

    def _ready(self, said: str) -> None:
        self.button.configure(text="Ask", command=self.ask, state="normal")
        self.status.configure(text=said)

    def ask(self) -> None:
        """Ask what stands in the line."""
        question = self.entry.get().strip()
        if not question or self.reasoner is None or str(self.button["text"]) != "Ask":
            return
        self.entry.delete(0, "end")
        self._write(f"{question}\n", "question")
        self.button.configure(text="Stop", command=lambda: self.stop.cancel())
        self.status.configure(text="writing")
        self.stop = CancelToken()
        params = replace(self.reasoner.config.params(), weighting=Weighting(threshold=min(1.0, max(0.0, self.threshold.get()))))
        self._work(self._answer, self.reasoner, question, params, self.stop)

    def _answer(self, reasoner: Reasoner, question: str, params: Params, stop: CancelToken) -> None:
        """In a thread: read an answer's events."""
        try:
            for event in reasoner.run(question, params, cancel=stop):
                self._later(self._show, event)
        except RSDError as error:
            self._later(self._failed, error)

    def _show(self, event: object) -> None:
        match event:
            case TextWritten(text=text, author=author, attempt=attempt):
                if self.pending != f"{author} {attempt}":
                    self._clear_pending()
                    self.pending = f"{author} {attempt}"
                self._write(text, "pending")
            case StepDone():
                self._show_step(event)
            case Finished(reason=reason, answer=answer):
                self._clear_pending()
                wrote = self.text.index("end-1c linestart") != self.text.index("end-1c")
                said = {"stop": f"answer: {answer}" if answer else "done", "cancelled": "stopped"}.get(reason, f"ended: {reason}")
                self._write(f"{chr(10) * wrote}{said}\n", "small")
                self._ready("ready")

    def _show_step(self, step: StepDone) -> None:
        self._clear_pending()
        if step.rejected is not None:
            reward = "" if step.rejected.reward is None else f"  {step.rejected.reward:.2f}"
            self._write(step.rejected.text.strip(), "rejected")
            self._write(f"   rejected{reward}\n", "small")
        self._write(step.text.strip(), step.author)
        bar = "" if step.reward is None else f"  {'▰' * round(step.reward * 10)}{'▱' * (10 - round(step.reward * 10))} {step.reward:.2f}"
        self._write(f"   {step.author}{'' if step.rejected else bar}\n", "small")

    def _failed(self, error: RSDError) -> None:
        self._clear_pending()
        self._write(f"{error}{f' – {error.hint}' if error.hint else ''}\n", "error")
        self._ready("")
        if self.reasoner is None:
            self.button.configure(state="disabled")
            self.bar.pack_forget()

    def _write(self, text: str, tag: str) -> None:
        at_end = self.text.yview()[1] > 0.99
        self.text.configure(state="normal")
        self.text.insert("end", text, tag)
        self.text.configure(state="disabled")
        if at_end:
            self.text.see("end")

    def _clear_pending(self) -> None:
        self.pending = ""
        spans = self.text.tag_ranges("pending")
        if spans:
            self.text.configure(state="normal")
            self.text.delete(spans[0], spans[-1])
            self.text.configure(state="disabled")

    def close(self) -> None:
        """End whatever goes on; the window is out of sight at once, and gone when the models are."""
        self.closing = True
        self.stop.cancel()
        self.root.withdraw()
        if self.reasoner is not None:
            self._work(self._close, self.reasoner)

    def _close(self, reasoner: Reasoner) -> None:
        reasoner.close()
        self._later(self._closed)

    def _closed(self) -> None:
        self.reasoner = None


def main(trio: str = "abacus") -> None:
    """Shows the window until it is closed."""
    root = tk.Tk()
    Window(root, trio)
    root.mainloop()


if __name__ == "__main__":
    multiprocessing.freeze_support()  # the models' process is this program too, once it is frozen
    main(*sys.argv[1:])
