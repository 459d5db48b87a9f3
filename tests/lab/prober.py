"""Clients of the VIP: a new TLS connection and one request every INTERVAL ms, and one that stays open.

    prober.py HOST PORT INTERVAL_MS

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

LIMIT_SECONDS = 600
REQUEST_SECONDS = 1
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
    requests = failed = 0
    last_good, longest = time.monotonic(), 0.0
    while time.monotonic() < began + LIMIT_SECONDS:
        requests += 1
        good = ask(host, port, context)
        now = time.monotonic()
        longest = max(longest, now - last_good)
        if good:
            last_good = now
        else:
            failed += 1
        if select.select([sys.stdin], [], [], interval_ms / 1000)[0]:
            break
    seen = {
        "requests": requests,
        "failed": failed,
        "longest_gap_seconds": longest,
        "long_lived": long.alive,
        "delay_seconds": delay.seconds,
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
