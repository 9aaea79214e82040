"""What is evaluated on a server while nobody waits for it."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from rsd_local.errors import RemoteError, RSDError, Unreachable
from rsd_local.events import CancelToken
from rsd_local.remote.transport import Call

if TYPE_CHECKING:
    from rsd_local.remote.place import Place


def ended_by(cancel: CancelToken | None, call: Call) -> AbstractContextManager[None]:
    """While whoever cancels an answer ends a request.

    Args:
        cancel: of the answer, None where nobody can.
        call: the request.
    """
    return nullcontext() if cancel is None else cancel.calling(call.cancel)


class SentAhead:
    """Tokens that are being evaluated while nobody waits for them; where that fails, the next request evaluates them itself.

    Args:
        place: where they stand.

    Attributes:
        done: whether nothing further comes.
        enough: whether nothing further is to be sent.
        lost: why the server was lost meanwhile, None where it was not.
        out: set where what is to be evaluated is on its way, and the place's texts are not touched any more.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._call, self.done, self.enough = place, Call(), False, False
        self.lost: Unreachable | None = None
        self.out = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rsd-remote-ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        place, call = self._place, self._call
        try:
            place.started(call)
            with ended_by(place.cancel, call):
                place.engine.check_up(call)
                while not place.rests(self):
                    place.spell(call)
                    call.when_sent = self.out.set
                    place.evaluate(call)
                    call.when_sent = None
        except RemoteError as error:
            self.lost = error if isinstance(error, Unreachable) else None
            place.engine.note_failure(error)
        except RSDError:
            pass  # a full context, or the end of all: the request that writes meets it too
        finally:
            place.ended(call)
            self.done = True
            self.out.set()

    def wait_out(self) -> None:
        """Wait until what is being sent is out; nothing further is."""
        with self._place.lock:  # no new round begins behind this
            self.enough = True
        self.out.wait()

    def join(self, seconds: float | None) -> None:
        """Wait for what is on its way; nothing further is sent."""
        self.enough = True
        self._thread.join(seconds)

    def cancel(self) -> None:
        """End it."""
        self.enough = True
        self._call.cancel()
