"""Figures for Prometheus, in a registry of the server's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from rsd_local.events import acceptance
from rsd_local.server.served import Served
from rsd_local.server.usage import Account, finite

CONTENT_TYPE = CONTENT_TYPE_LATEST
_REWARDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_KINDS = {
    "prompt": "opening_tokens",
    "cached": "cached_tokens",
    "evaluated": "evaluated_tokens",
    "generated": "generated_tokens",
    "discarded": "discarded_tokens",
    "unused": "unused_tokens",
}
"""Kinds of tokens that one role has, and where they are counted."""


class Metrics:
    """What the server counts.

    Args:
        running: how many answers are being written.
        waiting: how many wait in the queue.
        ready: whether requests are answered.
    """

    def __init__(self, running: Callable[[], float], waiting: Callable[[], float], ready: Callable[[], bool]) -> None:
        self._registry = own = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"rsd_{name}", about, labels, registry=own)

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"rsd_{name}", about, labels, registry=own, buckets=buckets)

        for name, about, source in (
            ("running", "Answers that are being written.", running),
            ("waiting", "Answers that wait in the queue.", waiting),
            ("ready", "1 where the models are loaded and requests are taken.", ready),
            ("acceptance_share", "Drafted steps that were accepted, of all so far; 0 where there is none.", self._acceptance),
            ("target_share", "Steps that the target wrote, of all so far; 0 where there is none.", self._target_share),
        ):
            Gauge(f"rsd_{name}", about, registry=own).set_function(source)
        self._requests = counter("requests", "HTTP requests.", "path", "method", "status")
        self._durations = histogram("request_seconds", "Time of HTTP requests.", _SECONDS, "path")
        self._errors = counter("errors", "Requests that failed, by the error's code.", "code")
        self._left = counter("clients_gone", "Answers whose client went away.")
        self._answers = counter("answers", "Answers that came to their end.", "strategy", "reason")
        self._tokens = counter("tokens", "Tokens by model and kind.", "role", "kind")
        self._written = counter("answer_tokens", "Tokens of accepted steps, by who wrote them.", "author")
        self._steps = counter("steps", "Accepted steps, by who wrote them.", "author")
        self._rejected = counter("rejected_steps", "Drafted steps that the target replaced.")
        self._seconds = counter("role_seconds", "Time of batches, by model.", "role")
        self._waited = counter("role_waiting_seconds", "Time of requests outside batches, the way to a server included.", "role")
        self._rounds = counter("server_rounds", "Requests to the server of a role.", "role")
        self._sent = counter("server_sent_bytes", "Bodies of requests to the server of a role.", "role")
        self._received = counter("server_received_bytes", "Bodies of the answers of a role's server.", "role")
        self._rewards = histogram("rewards", "Rewards of drafted steps.", _REWARDS)
        self._first = histogram("first_text_seconds", "From a request to the first text of its answer.", _SECONDS)
        self._is_loaded = Gauge("rsd_model_loaded", "1 where a trio is loaded.", ("model",), registry=own)
        self._loads = Gauge("rsd_model_loads", "Times that a trio was loaded.", ("model",), registry=own)
        self._by = {"draft": 0, "target": 0}
        self._accepted = self._drafted = 0
        self._drifts = _DriftGauges()
        own.register(self._drifts)

    def watch(self, served: Served) -> None:
        """Show of a trio whether it is loaded, how often it was, and its drift where it was tuned."""
        self._drifts.served.append(served)
        self._is_loaded.labels(served.name).set_function(lambda: float(served.loaded is not None))
        self._loads.labels(served.name).set_function(lambda: float(served.loads))

    def request(self, path: str, method: str, status: int, seconds: float) -> None:
        """Count a request; ``path`` is that of its route, never what a client wrote."""
        self._requests.labels(path, method, str(status)).inc()
        self._durations.labels(path).observe(seconds)

    def error(self, code: str) -> None:
        """Count a request that failed."""
        self._errors.labels(code).inc()

    def gone(self) -> None:
        """Count an answer whose client went away."""
        self._left.inc()

    def answer(self, account: Account) -> None:
        """Count an answer that came to its end, cancelled ones included."""
        strategy, end = account.job.strategy, account.finished
        self._answers.labels(strategy, end.reason).inc()
        for role, counters in end.counters.items():
            for kind, source in _KINDS.items():
                self._tokens.labels(role, kind).inc(getattr(counters, source))
            self._seconds.labels(role).inc(finite(counters.seconds) or 0.0)
            self._waited.labels(role).inc(finite(counters.waiting_seconds) or 0.0)
            if counters.rounds:
                self._rounds.labels(role).inc(counters.rounds)
                self._sent.labels(role).inc(counters.sent_bytes)
                self._received.labels(role).inc(counters.received_bytes)
        for step in account.steps:
            self._written.labels(step.author).inc(step.tokens)
            self._steps.labels(step.author).inc()
            self._by[step.author] += 1
            if (reward := finite(step.reward)) is not None:
                self._rewards.observe(reward)
        accepted, drafted = acceptance(account.steps)
        self._rejected.inc(drafted - accepted)
        self._accepted, self._drafted = self._accepted + accepted, self._drafted + drafted
        if account.times.first:
            self._first.observe(max(0.0, account.times.first - account.times.asked))

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self._registry)

    def _acceptance(self) -> float:
        return self._accepted / max(1, self._drafted)

    def _target_share(self) -> float:
        return self._by["target"] / max(1, sum(self._by.values()))


class _DriftGauges:
    """Gauges that are there only for loaded trios that were tuned."""

    def __init__(self) -> None:
        self.served: list[Served] = []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges that there are figures for."""
        expected = GaugeMetricFamily("rsd_acceptance_expected", "Share of drafted steps accepted when rsd tune chose.", labels=["model"])
        recent = GaugeMetricFamily("rsd_acceptance_recent", "The same in the answers of the last check and since.", labels=["model"])
        drift = GaugeMetricFamily("rsd_acceptance_drift", "1 where the two differ by more than chance.", labels=["model"])
        for served in self.served:
            recorder = served.loaded.recorder if served.loaded is not None else None
            watch = recorder.drift if recorder is not None else None
            if watch is None:
                continue
            expected.add_metric([served.name], watch.expected)
            drift.add_metric([served.name], float(watch.drift))
            if watch.recent is not None:
                recent.add_metric([served.name], watch.recent)
        yield from (family for family in (expected, recent, drift) if family.samples)
