"""A client of the VIP: a new TLS connection and one request every INTERVAL ms, until stdin closes.

    prober.py HOST PORT INTERVAL_MS

Prints `started` after the first good answer, and at the end what it saw as JSON. Ends by itself after ten minutes.
"""

from __future__ import annotations

import http.client
import json
import select
import ssl
import sys
import time

LIMIT_SECONDS = 600
REQUEST_SECONDS = 3


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


def main() -> None:
    host, port, interval_ms = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    context = ssl._create_unverified_context()
    began = time.monotonic()
    while not ask(host, port, context):
        if time.monotonic() > began + REQUEST_SECONDS * 10:
            sys.exit("no answer to begin with")
    print("started", flush=True)
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
    print(json.dumps({"requests": requests, "failed": failed, "longest_gap_seconds": longest}))


if __name__ == "__main__":
    main()
