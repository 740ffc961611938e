"""Send: hands a message to Apprise, in a process of its own.

Apprise, and what it uses for some fifty services, log URLs with their secrets, block, and can't be
interrupted. Whatever this process prints is thrown away, and it is killed when its time is over.

    python -m spa5.screen.send    reads a job from stdin, see `main`
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TextIO

USABLE, WRONG, SENT, FAILED = "usable", "wrong", "sent", "failed"


def main() -> None:
    """Print a line with a URL's number and what became of the message, as soon as it is known.

    The job: `urls`, and `message`: the arguments of Apprise.notify; None: URLs are only checked.
    """
    results, sys.stdout = sys.stdout, sys.stderr  # services may print
    job = json.load(sys.stdin)
    with ThreadPoolExecutor(len(job["urls"])) as pool:
        for number, url in enumerate(job["urls"]):
            pool.submit(_send, results, job["message"], number, url)


def _send(results: TextIO, message: dict[str, Any] | None, number: int, url: str) -> None:
    from apprise import Apprise

    service = Apprise()
    if not service.add(url):
        outcome = WRONG
    elif message is None:
        outcome = USABLE
    else:
        outcome = SENT if service.notify(**message) else FAILED
    results.write(f"{number} {outcome}\n")
    results.flush()


if __name__ == "__main__":
    main()
