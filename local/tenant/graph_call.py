"""One request to Graph with what every route needs: caller, mailbox, options, body, answer."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

from .access import is_callers_own, open_principal, sees_only_basics
from .errors import GraphError
from .mailbox import Mailbox, item_not_found
from .message_json import HIDDEN_FROM_READ_BASIC, MESSAGE_TYPE, View
from .messages import ALL_PROPERTIES, Message
from .query_options import option, read_expand, read_preferences, read_select

if TYPE_CHECKING:
    from .folders import Folder
    from .login import Caller
    from .world import World

LARGEST_REQUEST_BYTES = 4 * 1024 * 1024  # graph.md 2.2 [D]


class GraphCall:
    """A request that passed the token check. `keys` are the ids in its path, decoded."""

    def __init__(self, world: World, request: web.Request, caller: Caller, keys: dict[str, str]) -> None:
        self.world = world
        self.request = request
        self.keys = keys
        self.reference = keys.get("user")  # None for /me
        self.options = request.query
        self.preferences = read_preferences(request.headers.getall("Prefer", []))
        self.caller = caller
        self.root = f"{request.scheme}://{request.host}/v1.0"

    # -- what it is about ---------------------------------------------------------------------------------

    def open(self, need: str) -> Mailbox:
        """The mailbox in the path, when the caller may do `need` there (access.py)."""
        owner = open_principal(self.world, self.caller, self.reference, need)
        return self.world.mail.mailbox(owner)

    def is_own(self, mailbox: Mailbox) -> bool:
        return is_callers_own(self.caller, mailbox.principal)

    def folder(self, mailbox: Mailbox) -> Folder:
        return mailbox.folder(self.keys["folder"])

    def message(self, mailbox: Mailbox) -> Message:
        """The message in the path; under a folder path it must lie in that folder."""
        message = mailbox.find(self.keys["message"])
        if "folder" in self.keys and message.folder is not mailbox.folder(self.keys["folder"]):
            raise item_not_found()
        return message

    def view(self, mailbox: Mailbox) -> View:
        """How this caller wants to see messages, from $select, $expand and Prefer."""
        expand = read_expand(option(self.options, "expand") or "", ALL_PROPERTIES, MESSAGE_TYPE)
        basic = sees_only_basics(self.caller, self.is_own(mailbox))
        return View(
            self.preferences,
            read_select(self.options, ALL_PROPERTIES, MESSAGE_TYPE),
            expand,
            HIDDEN_FROM_READ_BASIC if basic else frozenset(),
        )

    # -- what came ----------------------------------------------------------------------------------------

    def check_length(self) -> None:
        """graph.md 2.2 [F]: a POST without body must say Content-Length: 0."""
        if "Content-Length" not in self.request.headers and "Transfer-Encoding" not in self.request.headers:
            raise GraphError(411, "LengthRequired", "A Content-Length header is required for this request.")

    async def body(self) -> bytes:
        """The request body; 413 above 4 MB (graph.md 2.2, 6.6)."""
        content = await self.request.read()
        if len(content) > LARGEST_REQUEST_BYTES:
            raise GraphError(413, "RequestEntityTooLarge", "The request exceeds the maximum size of 4 MB.")
        return content

    async def json_body(self) -> dict[str, Any]:
        """The JSON object in the body; 400 for anything else."""
        try:
            given = json.loads(await self.body())
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise GraphError(
                400,
                "BadRequest",
                "Unable to read JSON request payload. Please ensure Content-Type header is set and payload "
                "is of valid JSON format.",
            )
        return given

    async def parameters(self) -> dict[str, Any]:
        """The parameters of an action, names in lower case: Graph takes both spellings (4, notes [D])."""
        return {name.lower(): value for name, value in (await self.json_body()).items()}

    @property
    def is_mime(self) -> bool:
        return self.request.content_type == "text/plain"

    async def mime_body(self) -> bytes:
        """The MIME message in a text/plain body; 400 when it is not base64 (graph.md 6.3 [D])."""
        text = b"".join((await self.body()).split())
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if not raw:
            message = "Invalid base64 string for MIME content."
            raise GraphError(400, "ErrorMimeContentInvalidBase64String", message)
        return raw

    # -- what goes back -----------------------------------------------------------------------------------

    def context(self, mailbox: Mailbox, tail: str) -> str:
        return f"{self.root}/$metadata#users('{quote(mailbox.principal.id)}')/{tail}"

    def answer(self, content: dict[str, Any], status: int = 200) -> web.Response:
        """JSON, with Preference-Applied repeating what was done (graph.md 2.4 [D])."""
        return web.json_response(content, status=status, headers=self.applied())

    def applied(self) -> dict[str, str]:
        done = self.preferences.applied
        return {"Preference-Applied": ", ".join(done)} if done else {}

    def here(self) -> str:
        """The URL of this request without its query, as the caller wrote the host."""
        return f"{self.request.scheme}://{self.request.host}{self.request.rel_url.raw_path}"
