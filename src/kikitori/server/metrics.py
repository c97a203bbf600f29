"""What happened, in the text format of Prometheus: requests by status, their durations, and the engine's load."""

from bisect import bisect_left
from collections import Counter

from kikitori.engine.base import Load

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counts of finished requests; used from the event loop alone."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets = [0] * (len(BOUNDS_S) + 1)
        self._sum = 0.0
        self.live = 0

    def count(self, route: str, status: int, seconds: float) -> None:
        """A request to a route was answered after so many seconds."""
        self._requests[route, status] += 1
        self._buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum += seconds

    def text(self, load: Load) -> str:
        """All of it, with the load of the engine."""
        lines = ["# TYPE kikitori_requests_total counter"]
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'kikitori_requests_total{{route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE kikitori_request_seconds histogram")
        total = 0
        for bound, count in zip([*map(str, BOUNDS_S), "+Inf"], self._buckets, strict=True):
            total += count
            lines.append(f'kikitori_request_seconds_bucket{{le="{bound}"}} {total}')
        lines += [f"kikitori_request_seconds_sum {self._sum:.6f}", f"kikitori_request_seconds_count {total}"]
        for kind, name, value in (
            ("gauge", "live_connections", self.live),
            ("gauge", "queue_jobs", load.jobs),
            ("gauge", "queue_audio_seconds", load.seconds),
            ("counter", "audio_seconds_total", load.done_seconds),
            ("counter", "busy_seconds_total", load.busy_seconds),
            ("counter", "batches_total", load.batches),
            ("counter", "utterances_total", load.utterances),
        ):
            lines += [f"# TYPE kikitori_{name} {kind}", f"kikitori_{name} {value:g}"]
        return "\n".join(lines) + "\n"
