"""Who opened a mail and which links were followed (emailengine.md 14.8): a picture of one point, and links that lead
through this service."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from shared.accounts import Accounts
from shared.errors import InvalidInput
from shared.events import Events
from shared.html_tags import attributes, inside_body, tags
from shared.service_settings import ServiceSettings
from shared.signed_links import SignedLinks, link

OPEN, CLICK = "/open.gif", "/redirect"
LONGEST_ADDRESS = 4096  # a longer link is left as it is: with its signature no browser would take it
_OWN = (OPEN, CLICK, "/unsubscribe")
NO_BASE = '"baseUrl" is required for tracking: the service has no public address of its own'


class Tracking:
    """Puts the marks into mails, and tells what comes back."""

    def __init__(self, links: SignedLinks, settings: ServiceSettings, accounts: Accounts, events: Events) -> None:
        self._links, self._settings = links, settings
        self._accounts, self._events = accounts, events

    async def rewriting(self, account: str, fields: dict[str, Any], message_id: str) -> Callable[[str], str] | None:
        """What puts into HTML what `trackOpens` and `trackClicks` ask for; None when they ask for nothing. The
        settings stand for what is not given. InvalidInput where tracking was asked for and the service does not know
        its address."""
        settings = await self._settings.all()
        both = fields.get("trackingEnabled")
        asked = {name: fields.get(name, both) for name in ("trackOpens", "trackClicks")}
        wanted = {name: settings.get(name) if value is None else value for name, value in asked.items()}
        if not any(wanted.values()):
            return None
        base = await self._links.base(fields.get("baseUrl"))
        if not base:
            if any(asked.values()):
                raise InvalidInput.field("baseUrl", NO_BASE)
            return None
        secret, about = await self._links.secret(), {"acc": account, "msg": message_id}

        def rewrite(html: str) -> str:
            if wanted["trackClicks"]:
                html = with_links(html, base, about, secret)
            if wanted["trackOpens"]:
                html = with_picture(html, link(base, OPEN, {"act": "open"} | about, secret))
            return html

        return rewrite

    async def was_opened(self, data: str, signature: str, caller: dict[str, str]) -> None:
        """Tells trackOpen. Forbidden for a link that is none of ours."""
        blob = await self._links.opened("open", data, signature)
        await self._tell("trackOpen", blob, caller)

    async def was_clicked(self, data: str, signature: str, caller: dict[str, str] | None) -> str:
        """Tells trackClick, unless nobody is named as having clicked; where the link leads. Forbidden for a link that
        is none of ours."""
        blob = await self._links.opened("click", data, signature)
        target = blob.get("url", "")
        if not target.lower().startswith(("http://", "https://")):
            raise InvalidInput.field("data", '"data" has no address to go to')
        if caller is not None:
            await self._tell("trackClick", blob, caller | {"url": target})
        return target

    async def _tell(self, event: str, blob: dict[str, str], seen: dict[str, str]) -> None:
        account = blob.get("acc", "")
        if account and await self._accounts.find(account) is not None:
            await self._events.emit(account, event, {"messageId": blob.get("msg", "")} | seen)


def with_picture(html: str, address: str) -> str:
    """The HTML with the picture at the end of its body."""
    _, end = inside_body(html)
    style = "border:0px;width:1px;height:1px;"
    picture = f'<img src="{escape(address)}" width="1" height="1" alt="" style="{style}" tabindex="-1">'
    return html[:end] + picture + html[end:]


def with_links(html: str, base: str, about: dict[str, str], secret: str) -> str:
    """The HTML with every link to a web page leading through this service; its own links stay."""
    pieces: list[str] = []
    at = 0
    own = tuple(base + path for path in _OWN)
    for tag in tags(html):
        for one in attributes(html, tag) if tag.name in ("a", "area") and not tag.closes else ():
            url = one.value.strip()
            is_page = one.name == "href" and url.lower().startswith(("http://", "https://"))
            if not is_page or url.startswith(own) or len(url) > LONGEST_ADDRESS:
                continue
            through = link(base, CLICK, {"act": "click", "url": url} | about, secret)
            pieces += [html[at : one.start], f'"{escape(through)}"']
            at = one.end
            break
    return "".join([*pieces, html[at:]])
