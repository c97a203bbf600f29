"""The server under load: `python benchmarks/server_load.py [RECORDING ...] [--decoding greedy] [--clients 32]`.

Starts `kikitori serve`, asks it with one client at a time, then with many at once, and prints statuses, throughput, how
long `/healthz` took, and memory. Texts of both have to be equal. Exit status 1 if a goal of docs/server.md is missed.
"""

import argparse
import http.client
import json
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kikitori.loading import BUNDLED

SAMPLES = sorted((BUNDLED.parents[1] / "samples").glob("*.opus"))
BOUNDARY = "kikitori-load"


@dataclass
class Counts:
    """What clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    audio_s: float = 0.0
    texts: dict[str, set[str]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    wall_s: float = 0.0


def form(path: Path, **fields: str) -> bytes:
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return "".join([*parts, head]).encode() + path.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} if body else {}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        wait = float(response.headers.get("Retry-After", 0))
        return response.status, response.read(), wait
    finally:
        connection.close()


def client(port: int, bodies: dict[str, bytes], number: int, until: float, counts: Counts) -> None:
    names = [*bodies]
    while time.monotonic() < until:
        name = names[number % len(names)]
        began = time.monotonic()
        status, answer, wait = ask(port, "POST", "/v1/audio/transcriptions", bodies[name])
        counts.statuses[status] += 1
        if status == 200:
            found = json.loads(answer)
            counts.audio_s += found["usage"]["seconds"]
            counts.texts.setdefault(name, set()).add(found["text"])
            counts.seconds.append(time.monotonic() - began)
            number += 1
        else:
            time.sleep(wait)


def health(port: int, until: float) -> list[float]:
    took = []
    while time.monotonic() < until:
        began = time.monotonic()
        assert ask(port, "GET", "/healthz")[0] == 200
        took.append(time.monotonic() - began)
        time.sleep(0.05)
    return took


def memory_over(pid: int, until: float) -> list[float]:
    """Resident memory in MB, a reading every ten seconds."""
    readings = [rss_mb(pid)]
    while time.monotonic() < until:
        time.sleep(10.0)
        readings.append(rss_mb(pid))
    return readings


def phase(
    port: int, pid: int, bodies: dict[str, bytes], clients: int, seconds: float
) -> tuple[Counts, list[float], list[float]]:
    counts, began = Counts(), time.monotonic()
    until = began + seconds
    with ThreadPoolExecutor(clients + 2) as threads:
        probing, reading = threads.submit(health, port, until), threads.submit(memory_over, pid, until)
        running = [threads.submit(client, port, bodies, number, until, counts) for number in range(clients)]
        for each in running:
            each.result()
        counts.wall_s = time.monotonic() - began
        return counts, probing.result(), reading.result()


def rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))] if values else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", nargs="*", type=Path)
    parser.add_argument("--decoding", default="greedy")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--goal", type=float, default=1.3, help="throughput over that of one client")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--model", default="mini-en")
    options = parser.parse_args()
    search = ["--search", options.decoding]
    server = subprocess.Popen(
        [sys.executable, "-m", "kikitori", "serve", "--port", str(options.port), "--model", options.model, *search],
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                model = json.loads(ask(options.port, "GET", "/v1/models")[1])["data"][0]["id"]
                break
            except OSError:
                assert server.poll() is None, "the server has ended"
                time.sleep(0.2)
        fields = {"model": model, "decoding": options.decoding}
        bodies = {str(path): form(path, **fields) for path in options.recordings or SAMPLES}
        for body in bodies.values():  # what is slow the first time
            assert ask(options.port, "POST", "/v1/audio/transcriptions", body)[0] == 200
        alone, _, _ = phase(options.port, server.pid, bodies, 1, options.seconds)
        many, took, memory = phase(options.port, server.pid, bodies, options.clients, options.seconds)
    finally:
        server.terminate()
        server.wait()
    speeds = [each.audio_s / each.wall_s for each in (alone, many)]
    print(f"one client: {dict(alone.statuses)}, {speeds[0]:.1f} s of audio a second, p95 {p95(alone.seconds):.2f} s")
    print(
        f"{options.clients} clients: {dict(many.statuses)}, {speeds[1]:.1f} s a second, p95 {p95(many.seconds):.2f} s"
    )
    print(f"throughput {speeds[1] / speeds[0]:.2f} times; /healthz p95 {1000 * p95(took):.0f} ms of {len(took)}")
    readings = " ".join(f"{each:.0f}" for each in memory)
    print(f"memory every ten seconds: {readings} MB; server ended with {server.returncode}")
    equal = all(many.texts[name] == texts for name, texts in alone.texts.items() if name in many.texts)
    print("texts are equal" if equal else "TEXTS DIFFER")
    kept = equal and {*many.statuses} <= {200, 429, 503} and p95(took) < 0.1 and speeds[1] >= options.goal * speeds[0]
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
