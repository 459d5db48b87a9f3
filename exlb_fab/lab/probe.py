"""Wait until a stand-in answers over TLS: run as a process of its own, in the network namespace to look from.

`python -m exlb_fab.lab.probe --port 6443 --limit 20 ADDRESS CERTIFICATE` exits with 0 as soon as the server at the
address proves that it has this certificate, and answers a request.
"""

import argparse
import http.client
import ssl
import sys
from collections.abc import Sequence

from exlb_fab.lab.waiting import until


def answers(address: str, port: int, certificate: str) -> bool:
    """Tell whether the server at the address proves to be the certificate's owner and answers a request."""
    connection = None
    try:
        context = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection(address, port, timeout=2, context=context)
        connection.request("GET", "/hostname")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        if connection is not None:
            connection.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Wait as the command line says; 1 when the limit is reached."""
    parser = argparse.ArgumentParser(prog="python -m exlb_fab.lab.probe")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--limit", type=float, required=True, help="seconds")
    parser.add_argument("address")
    parser.add_argument("certificate", help="file")
    options = parser.parse_args(arguments)
    answered = until(
        lambda: answers(options.address, options.port, options.certificate), limit_s=options.limit, every_s=0.05
    )
    return 0 if answered else 1


if __name__ == "__main__":
    sys.exit(main())
