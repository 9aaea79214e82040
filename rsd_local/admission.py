"""The queue in front of a trio: so many prompts at once, the others first in, first out."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from rsd_local.errors import Cancelled, Closed, QueueFull, WaitsForItself
from rsd_local.events import CancelToken

_GRACE = 0.5  # seconds that a run which nobody has begun gets to be begun by another thread, and a loop to close one that was left


class Ticket:
    """A place in the queue, and then one of the trio's; ``leave`` gives either back."""

    def __init__(self, queue: Admission, owner: Hashable) -> None:
        self._queue = queue
        self.owner = owner
        self.begun = False
        self.may_lag = False  # whether its owner may have let go of another one a moment ago: a loop closes what was left with delay

    @property
    def position(self) -> int:
        """How many have to leave before it is this one's turn; 0 once it is."""
        return self._queue.position(self)

    def wait(self, cancel: CancelToken) -> None:
        """Wait for the turn.

        Raises:
            Cancelled: ``cancel`` was called meanwhile.
            Closed: the queue was closed, or the place given back.
            WaitsForItself: all who would have to leave are held by this one's own owner, which waits here.
        """
        self._queue.wait(self, cancel)

    def leave(self) -> None:
        """Give the place back. A second call does nothing."""
        self._queue.leave(self)


class Admission:
    """A first-in first-out queue.

    Args:
        capacity: how many are admitted at once.
        limit: how many more may wait.
    """

    def __init__(self, capacity: int, limit: int) -> None:
        self._capacity, self._limit = capacity, limit
        self._tickets: list[Ticket] = []  # in the order of asking; the first ``capacity`` are admitted
        self._changed = threading.Condition()
        self._closed = False

    def enter(self, owner: Hashable) -> Ticket:
        """A place at the end of the queue.

        Args:
            owner: the thread or task that will wait, and that nobody must wait for who is the same.

        Raises:
            QueueFull: too many wait already.
            Closed: the queue was closed.
        """
        with self._changed:
            self._check_open()
            if len(self._tickets) >= self._capacity + self._limit:
                raise QueueFull(f"{self._limit} prompts wait already", hint="ask again later, or open the trio with a larger queue")
            ticket = Ticket(self, owner)
            self._tickets.append(ticket)
            return ticket

    def position(self, ticket: Ticket) -> int:
        """How many have to leave before a ticket's turn."""
        with self._changed:
            return max(0, self._tickets.index(ticket) - self._capacity + 1) if ticket in self._tickets else 0

    def wait(self, ticket: Ticket, cancel: CancelToken) -> None:
        """Wait for a ticket's turn; see ``Ticket.wait``."""
        patient = True
        with cancel.calling(self._wake), self._changed:
            ticket.begun = True
            while True:
                self._check_open()
                if ticket not in self._tickets:
                    raise Closed("the run was closed")
                if self._tickets.index(ticket) < self._capacity:
                    return
                if cancel.cancelled:
                    raise Cancelled("cancelled")
                ahead = self._tickets[: self._capacity]
                if all(one.owner == ticket.owner for one in ahead):
                    if (all(one.begun for one in ahead) and not ticket.may_lag) or not patient:
                        raise WaitsForItself(
                            "this would wait for a run that the same thread has not finished",
                            hint="finish or close that one first, or open the trio with a larger parallel",
                        )
                    patient = False
                    self._changed.wait(_GRACE)
                else:
                    self._changed.wait()

    def leave(self, ticket: Ticket) -> None:
        """Give a ticket's place back."""
        with self._changed:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                self._changed.notify_all()

    def resize(self, capacity: int, limit: int) -> None:
        """Admit more or fewer at once from now on; nobody who was admitted, or waits, is sent away."""
        with self._changed:
            self._capacity, self._limit = capacity, limit
            self._changed.notify_all()

    def close(self) -> None:
        """Refuse whoever comes, and end all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the reasoner was closed")
