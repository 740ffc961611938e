"""Control: the commands that steer a site while it runs, and tell what it was asked for."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.standin.faults import Faults, Hold, Override, dump, reply
from tests.standin.login import Door
from tests.standin.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from tests.standin.catalogue import Key
    from tests.standin.server import Site


class Control:
    """Answers `GET /_site/stats`, `POST /_site/reset` and `POST /_site/control` of a site."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def answer(self, request: web.BaseRequest) -> web.Response:
        path, _, query = request.raw_path.partition("?")
        site = self._site
        match request.method, path:
            case "GET", "/_site/stats":
                return reply(dump(site.stats.report(details="details=1" in query)))
            case "POST", "/_site/reset":
                site.stats = Stats(site.stats.in_flight, peak=site.stats.in_flight)
                return reply(b'{"ok": true}')
            case "POST", "/_site/control":
                return self._control(await request.content.read())
        return reply(b'{"ok": false, "error": "no such command"}', 404)

    def _control(self, body: bytes) -> web.Response:
        try:
            self._steer(json.loads(body))
        except (TypeError, ValueError, re.error) as error:
            return reply(dump({"ok": False, "error": str(error)}), 400)
        finally:
            self._site.forget_pages()
        return reply(b'{"ok": true}')

    def _steer(self, options: dict[str, Any]) -> None:
        site = self._site
        actions: dict[str, Callable[[Any], None]] = {
            "count_true": lambda _: site.settings.update(count=site.TRUTH),
            "insert": site.catalogue.insert,
            "override": self._override,
            "faults": self._set_faults,
            "hold": self._set_hold,
            "log_in": self._set_log_in,
        }
        by_key: dict[str, Callable[[list[Key]], None]] = {
            "remove": site.catalogue.remove,
            "vanish": site.vanished.update,
            "edit": site.catalogue.edit,
            "edit_hidden": site.catalogue.edit_hidden,
            "edit_back": site.catalogue.edit_back,
        }
        known = [*site.settings, *actions, *by_key]
        if wrong := [name for name in options if name not in known]:
            raise ValueError(f"no such options: {wrong}; known: {known}")
        if options.keys() & {"rename", "blank"}:
            site.forget_details()
        for name, value in options.items():
            if name in site.settings:
                site.settings[name] = value
            elif name in actions:
                actions[name](value)
            else:
                self._change(by_key[name], value)

    def _change(self, action: Callable[[list[Key]], None], keys: list[Key]) -> None:
        if unknown := [key for key in keys if key not in self._site.catalogue]:
            raise ValueError(f"no such items: {unknown}")
        action(keys)
        self._site.forget_details(keys)

    def _override(self, answers: dict[str, dict[str, Any] | None]) -> None:
        for target, answer in answers.items():
            self._site.overrides.pop(target, None)
            if answer is not None:
                self._site.overrides[target] = Override(**answer)

    def _set_faults(self, options: dict[str, Any] | None) -> None:
        self._site.faults = Faults(share=0) if options is None else Faults(**options)

    def _set_log_in(self, options: dict[str, Any] | None) -> None:
        self._site.door = None if options is None else Door(**options)

    def _set_hold(self, options: dict[str, Any] | None) -> None:
        hold = None if options is None else Hold(**options)
        if self._site.hold:
            self._site.hold.end()
        self._site.hold = hold
