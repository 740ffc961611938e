"""A stand-in in a process of its own, for the length of a `with` block."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.helpers.warm import Warm
from tests.standin.books import Books
from tests.standin.movies import Movies
from tests.standin.products import Products

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.standin.catalogue import Catalogue

ROOT = Path(__file__).resolve().parents[2]
CATALOGUES: dict[str, type[Catalogue]] = {"books": Books, "movies": Movies, "products": Products}


class RunningSite:
    """A site in a process of its own, and a catalogue like the one it began with."""

    def __init__(self, url: str, catalogue: Catalogue) -> None:
        self.url = url
        self.catalogue = catalogue
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def stats(self, details: bool = False) -> dict[str, Any]:
        return self._ask(f"stats?details={int(details)}")

    def control(self, **options: Any) -> None:
        self._ask("control", json.dumps(options).encode())

    def reset(self) -> None:
        self._ask("reset", b"")

    def _ask(self, what: str, body: bytes | None = None) -> dict[str, Any]:
        try:
            with self._opener.open(f"{self.url}/_site/{what}", body, timeout=600) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(json.load(error)["error"]) from None
        return answer


@contextmanager
def running_site(
    items: int = 100,
    seed: int = 1,
    latency: float = 0,
    cap: int | None = None,
    prerender: bool = False,
    kind: str = "books",
) -> Iterator[RunningSite]:
    """Serve so many items of a kind for the length of a `with` block."""
    command = ["tests.standin", "--port=0", "--until-stdin-closes"]
    command += [f"--{kind}={items}", f"--seed={seed}", f"--latency={latency}"]
    command += [] if cap is None else [f"--cap={cap}"]
    command += ["--prerender"] if prerender else []
    pipe = subprocess.PIPE
    with Warm(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            url = process.stdout.readline().strip() if process.stdout else ""
            if not url:
                raise RuntimeError("the stand-in of the site did not start")
            yield RunningSite(url, CATALOGUES[kind](items, seed))
        finally:
            process.kill()
