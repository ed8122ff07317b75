"""/metrics: figures for Prometheus (docs/howto/watch.md).

No label names a tenant, a person or a thing: labels are names of routes, codes, kinds and states, all of them words of this program. So the
page tells nobody who the customers are, and the number of time series does not grow with them.

The processes of one server share their counters through files in a folder (`frontends.http.figures`), so whichever of them answers, it answers for all.
What is read from the database is read when the page is asked for, and kept for a few seconds.
"""

from __future__ import annotations

import os
import platform
import threading
from time import monotonic
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics import disable_created_metrics
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from keystead import __version__
from keystead.core.access.principal import Role
from keystead.core.alerts import AlertKind
from keystead.core.errors import Forbidden, KeysteadError, Unauthenticated
from keystead.core.keys.decide import Health, health
from keystead.core.keys.outcome import OutcomeClass
from keystead.core.policies.policy import CopyRole
from keystead.frontends.http.answers import Document
from keystead.frontends.http.figures import SHARED
from keystead.services.figures import figures
from keystead.services.tally import Counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.metrics_core import Metric

    from keystead.core.access.principal import Principal
    from keystead.frontends.http.app import Seen
    from keystead.frontends.http.credentials import Credentials
    from keystead.ports.figures import Figures
    from keystead.services.context import Services

KEPT = 5.0
"""Seconds for which what was read from the database is shown again."""
SHARE = 20
"""And at least so many times as long as it took to read: with a million jobs in line a look takes a while."""
disable_created_metrics()  # type: ignore[no-untyped-call]  # the time of a counter's first use is of no use here, and a series each

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds: from a small read to the longest time a route allows."""
NO_ROUTE = "none"
"""Calls of paths that are not there, and what is no HTTP."""


class Metrics:
    """The figures of one server process.

    Args:
        services: whose jobs, moves, policies, alerts and cached keys are shown.
        authenticate: who credentials are.
    """

    def __init__(self, services: Services, authenticate: Callable[[Credentials], Principal]) -> None:
        self._authenticate = authenticate
        registry = CollectorRegistry()
        own = CollectorRegistry() if SHARED in os.environ else registry
        self._registry = registry
        self._requests = Counter("keystead_http_requests", "Requests answered.", ("route", "status"), registry=own)
        self._seconds = Histogram(
            "keystead_http_request_duration_seconds",
            "From a request's head to the last byte of its answer.",
            ("route",),
            buckets=BUCKETS,
            registry=own,
        )
        self._in_flight = Gauge(
            "keystead_http_requests_in_flight", "Requests being answered now.", registry=own, multiprocess_mode="livesum"
        )
        self._received = Counter("keystead_http_received_bytes", "Bytes of requests' bodies.", ("route",), registry=own)
        self._sent = Counter("keystead_http_sent_bytes", "Bytes of answers' bodies.", ("route",), registry=own)
        self._refused = Counter("keystead_http_refused", "Answers that were an error, and answers cut off.", ("code",), registry=own)
        self._sign_in = Counter("keystead_authentication_failures", "Requests of callers who are not signed in.", ("code",), registry=own)
        self._answers = Counter(
            "keystead_customer_key_answers", "What customer keys answered when asked to unwrap.", ("outcome",), registry=own
        )
        self._availability = Counter(
            "keystead_availability_key_uses", "Policy keys opened by the availability key.", ("cause",), registry=own
        )
        self._unwritten = Counter("keystead_audit_write_failures", "Acts refused because their record could not be written.", registry=own)
        self._turns = Counter("keystead_job_turns", "Turns of jobs, by what became of them.", ("kind", "outcome"), registry=own)
        if SHARED in os.environ:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no types here
        else:
            ProcessCollector(registry=registry)
        registry.register(_Looked(services))
        self._of_route: dict[str, tuple[Histogram, Counter, Counter]] = {}
        self._of_status: dict[tuple[str, int], Counter] = {}
        services.tally.listen(self.count)

    def began(self) -> None:
        """A request's head is there."""
        self._in_flight.inc()

    def ended(self, seen: Seen) -> None:
        """A request is answered. Children of labels are kept: looking one up costs more than counting."""
        self._in_flight.dec()
        route = seen.route or NO_ROUTE
        known = self._of_route.get(route)
        if known is None:
            known = self._of_route[route] = self._seconds.labels(route), self._received.labels(route), self._sent.labels(route)
        requests = self._of_status.get((route, seen.status))
        if requests is None:
            requests = self._of_status[route, seen.status] = self._requests.labels(route, str(seen.status))
        requests.inc()
        known[0].observe(seen.seconds)
        known[1].inc(seen.received)
        known[2].inc(seen.sent)
        if seen.code:
            self._refused.labels(seen.code).inc()
            if seen.status == 401:
                self._sign_in.labels(seen.code).inc()

    def count(self, what: Counted, labels: tuple[str, ...]) -> None:
        """Listens to the tally of the use cases."""
        if what is Counted.CUSTOMER_KEY_ANSWER:
            self._answers.labels(*labels).inc()
        elif what is Counted.AVAILABILITY_KEY_USE:
            self._availability.labels(*labels).inc()
        elif what is Counted.AUDIT_UNWRITTEN:
            self._unwritten.inc()
        else:
            self._turns.labels(*labels).inc()

    def page(self, shown: Credentials) -> Document:
        """The page, for callers on this machine and for the provider's operators.

        Raises:
            Unauthenticated: neither.
            Forbidden: signed in, and not as an operator.
        """
        if not shown.local:
            self._require_operator(shown)
        return Document(CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry))

    def _require_operator(self, shown: Credentials) -> None:
        principal = self._authenticate(shown)
        if not principal.roles:
            raise Unauthenticated("not_signed_in", "nobody is signed in, and figures are for operators", "give an operator's token")
        if Role.OPERATOR not in principal.roles:
            raise Forbidden("role_missing", f"{principal.upn} may not see the figures", "one of these roles may: operator")


class _Looked(Collector):
    """What is looked up when the page is asked for."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._figures: Figures | None = None
        self._until = 0.0

    def describe(self) -> Iterable[Metric]:
        """Nothing is looked up for a registration."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The figures of now, or of a few seconds ago; without a database those that need none."""
        build = _family("keystead_build_info", "Always 1; the labels tell what runs.", "version", "python")
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        held = _family("keystead_cached_policy_keys", "Policy keys in the memory of the process that answers.", "opened_by")
        counted = self._services.keyring.held()
        for role in CopyRole:
            held.add_metric((role.value,), counted.get(role, 0))
        yield held
        found = self._look()
        yield GaugeMetricFamily("keystead_database_up", "Whether the database gave the figures below.", value=float(found is not None))
        if found is not None:
            yield from _shown(found, self._services.clock.now())

    def _look(self) -> Figures | None:
        """One look for all who ask at the same time."""
        with self._lock:
            started = monotonic()
            if started >= self._until:
                try:
                    self._figures = figures(self._services)
                except KeysteadError:
                    self._figures = None
                now = monotonic()
                self._until = now + max(KEPT, SHARE * (now - started))
            return self._figures


def _shown(found: Figures, now: int) -> Iterator[Metric]:
    jobs = _family("keystead_jobs", "Jobs that wait, run, or failed for good.", "kind", "state")
    for (kind, state), count in found.jobs.items():
        jobs.add_metric((kind, state.value), count)
    yield jobs
    waited = max(0, now - found.oldest_due) / 1_000 if found.oldest_due is not None else 0.0
    yield GaugeMetricFamily(
        "keystead_job_oldest_due_seconds", "How long the first of the jobs in line has waited; 0 for none.", value=waited
    )
    yield GaugeMetricFamily("keystead_moves_overdue", "Mailboxes whose change of hierarchy is not done in time.", value=found.overdue_moves)
    yield GaugeMetricFamily(
        "keystead_geos_overdue", "Geos in which a change of the files policy is not done in time.", value=found.overdue_geos
    )
    policies = _family("keystead_policies", "Customer policies by what their keys answered last.", "health")
    of_health = dict.fromkeys([*(one.value for one in Health), UNKNOWN], 0)
    for pair, count in found.policies.items():
        of_health[_health(pair)] += count
    for name, count in of_health.items():
        policies.add_metric((name,), count)
    yield policies
    alerts = _family("keystead_alerts", "Alerts that last.", "kind")
    for kind in AlertKind:
        alerts.add_metric((kind.value,), found.alerts.get(kind.value, 0))
    yield alerts


UNKNOWN = "unknown"
"""Of a policy whose keys were never asked both: while one of them opens at the first question, the other is left alone."""


def _health(pair: tuple[str, str]) -> str:
    return health(OutcomeClass(kind) for kind in pair).value if all(pair) else UNKNOWN


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)
