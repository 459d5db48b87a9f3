"""Clients of the VIP: a new TLS connection and one request every INTERVAL ms, and one that stays open.

    prober.py HOST PORT INTERVAL_MS

A connection that hangs, as to a node that has lost its power, does not keep the next one waiting.

Prints `started SERVER` after the first good answers, SERVER being the apiserver that the open connection has reached,
and what it saw as JSON when stdin closes. Ends by itself after ten minutes.
"""

from __future__ import annotations

import http.client
import json
import select
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

LIMIT_SECONDS = 600
REQUEST_SECONDS = 1
MOST_REQUESTS = 50  # at once: more than one every 50 ms that all hang
SILENCE_SECONDS = 5  # the stand-in says something every second
SAMPLE_SECONDS = 0.01


def ask(host: str, port: int, context: ssl.SSLContext) -> bool:
    """Tell whether one request on a connection of its own is answered with 200."""
    connection = http.client.HTTPSConnection(host, port, timeout=REQUEST_SECONDS, context=context)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Clients:
    """Requests that are sent beside each other: how many, how many failed, and when there were good answers."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self.requests = self.failed = 0
        self._target = (host, port, context)
        self._good, self._last_bad = [time.monotonic()], 0.0
        self._lock = threading.Lock()

    def one(self) -> None:
        good = ask(*self._target)
        with self._lock:
            self.requests += 1
            if good:
                self._good.append(time.monotonic())
            else:
                self.failed += 1
                self._last_bad = time.monotonic()

    @property
    def longest_gap_seconds(self) -> float:
        times = [*self._good, max(self._good[-1], self._last_bad)]
        return max(later - earlier for earlier, later in pairwise(times))


class LongConnection(threading.Thread):
    """One request whose answer never ends; `alive` until it does."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPSConnection(host, port, timeout=SILENCE_SECONDS, context=context)
        self._connection.request("GET", "/watch")
        self._answer = self._connection.getresponse()
        self.server = json.loads(self._answer.readline())["object"]["host"]
        self.alive = True

    def run(self) -> None:
        try:
            while self._answer.readline():
                pass
        except (OSError, http.client.HTTPException):
            pass
        self.alive = False


class Delay(threading.Thread):
    """How much later than asked for this process is woken up, at most: what no bound can leave out."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds = 0.0

    def run(self) -> None:
        while True:
            began = time.monotonic()
            time.sleep(SAMPLE_SECONDS)
            self.seconds = max(self.seconds, time.monotonic() - began - SAMPLE_SECONDS)


def main() -> None:
    host, port, interval_ms = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    context = ssl._create_unverified_context()
    began = time.monotonic()
    while not ask(host, port, context):
        if time.monotonic() > began + 30:
            sys.exit("no answer to begin with")
    long, delay = LongConnection(host, port, context), Delay()
    long.start()
    delay.start()
    print("started", long.server, flush=True)
    clients = Clients(host, port, context)
    sent = []
    with ThreadPoolExecutor(max_workers=MOST_REQUESTS) as pool:
        while time.monotonic() < began + LIMIT_SECONDS:
            sent.append(pool.submit(clients.one))
            if select.select([sys.stdin], [], [], interval_ms / 1000)[0]:
                break
    for request in sent:
        request.result()  # one that ended by a fault of this program was neither good nor failed
    seen = {
        "requests": clients.requests,
        "failed": clients.failed,
        "longest_gap_seconds": clients.longest_gap_seconds,
        "long_lived": long.alive,
        "delay_seconds": delay.seconds,
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
