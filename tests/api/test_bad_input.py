"""Input that no honest client sends, to every operation of the description: refused in the envelope, never a failure.

Operations are taken from /openapi.json and their right bodies from its examples, so that a new operation is tried
without being named here. Whatever is accepted nevertheless must leave the service working.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.rest import Rest, is_envelope

Json = dict[str, Any]
ACCOUNT = "bad-input"
# Written into JSON as they are: some of them are no JSON that a library would write.
BAD_VALUES = {
    "lone surrogate": '"a\\ud800b"',
    "two surrogates in the wrong order": '"\\udc00\\ud800"',
    "null character": '"a\\u0000b"',
    "control characters and line ends": '"a\\r\\nX-Injected: 1\\u0085\\u2028\\u001b"',
    "null": "null",
    "list of null": "[null]",
    "list of lists of null": "[[null], [[]]]",
    "object where a word belongs": '{"__proto__": {"x": 1}, "constructor": null, "": []}',
    "number beyond 64 bits": "9223372036854775808",
    "negative number beyond 64 bits": "-9223372036854775809",
    "number of 400 digits": "9" * 400,
    "number beyond all floats": "1e400",
    "no number": "NaN",
    "less than nothing": "-0.0",
    "nested 200 deep": "[" * 200 + "]" * 200,
    "objects nested 200 deep": '{"a":' * 200 + "1" + "}" * 200,
    "very long text": '"' + "x" * 100_000 + '"',
    "many dots, slashes and percents": '"../..%2F%00%25/\\\\?#;&"',
    "text with marks only": '"' + "\\u0301" * 300 + '"',
}
BAD_QUERIES = (
    "=", "&&&", "%", "%zz=%", "%FF=%FF", "%00=%00", "%ED%A0%80=%ED%B0%80", "a[b][c]=1", "__proto__=1",
    "page=1&page=2", "page=9223372036854775808", "page=1e3", "page=%00", "page=", "pageSize=null", "pageSize=0x10",
    "path=%00", "path=%ED%A0%80", "path=a&path=b", "account=%ED%A0%80", "account=%00", "query=%FF%FE", "cursor=%00",
    "cursor=ms_e30", "cursor=ms_%FF", "textType=%00", "maxBytes=99999999999999999999", "x=" + "y" * 5000,
    "access_token=%ED%A0%80", "access_token=%00&access_token=x",
)  # fmt: skip
BAD_IDS = (
    "%00", "a%00b", "%ED%A0%80", "%FF", "..", "..%2F..%2Fx", "%2F", "%5C", "a%0D%0AX-Injected%3A%201", "%25", "%",
    "%zz", "%F0%9F%98%80", "'%20or%20'1'%20eq%20'1", "x" * 256, "x" * 257, "x" * 3000, "__proto__", "null", "0", "-1",
    "%CC%81" * 256,
)  # fmt: skip
WRONG_TYPES = {
    "text/plain": b"hello", "application/xml": b"<a/>", "application/x-www-form-urlencoded": b"a=1&a=2",
    "multipart/form-data; boundary=x": b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\n",
    "multipart/form-data": b"no boundary", "application/octet-stream": bytes(range(256)), "nonsense": b"\x00",
    "application/json; charset=utf-16": '{"a": 1}'.encode("utf-16"), "application/json": b"\xef\xbb\xbf{",
}  # fmt: skip


class Sender:
    """Calls the app, and keeps every answer that was a failure or no envelope."""

    def __init__(self, rest: Rest, described: Json) -> None:
        self.rest, self.described = rest, described
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {rest.app.token}"
        self.failures: list[str] = []
        self.sent = 0

    def operations(self) -> Iterator[tuple[str, str, Json]]:
        """Method, path and description of each, except those that would take the account away."""
        for path, item in self.described["paths"].items():
            for method, one in item.items():
                if (method, path) not in (("delete", "/v1/account/{account}"), ("get", "/v1/changes")):
                    yield method.upper(), path, one

    def path(self, path: str, one: Json, **ids: str) -> str:
        """The path with ids in place, the examples' but for those given."""
        for parameter in one["parameters"]:
            if parameter["in"] == "path":
                value = ids.get(parameter["name"], parameter["example"])
                path = path.replace(f"{{{parameter['name']}}}", value)
        return path

    def send(self, method: str, path: str, why: str, body: bytes | None = None, kind: str = "application/json") -> None:
        """One request, exactly as given."""
        prepared = self.session.prepare_request(
            requests.Request(method, self.rest.app.url, data=body, headers={"Content-Type": kind} if body else {})
        )
        prepared.url = self.rest.app.url + path
        answer = self.session.send(prepared, timeout=120, allow_redirects=False)
        self.sent += 1
        status, media = answer.status_code, answer.headers.get("Content-Type", "")
        good = status in (200, 302) or (400 <= status < 500 and (is_envelope(_json(answer), status) or "html" in media))
        if not good:
            self.failures.append(f"{method} {path[:200]} ({why}): {status} {answer.text[:300]}")


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def with_leaves(value: Any, raw: str) -> str:
    """JSON of a body in which every leaf is this text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {with_leaves(inner, raw)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(with_leaves(inner, raw) for inner in value) + "]"
    return raw


def bodies(example: Json, kind: str) -> Iterator[str]:
    """The example with one field wrong after the other, and with every leaf wrong at once."""
    raw = BAD_VALUES[kind]
    yield with_leaves(example, raw)
    for field in example:
        rest = {name: value for name, value in example.items() if name != field}
        yield f"{json.dumps(rest)[:-1]}{', ' if rest else ''}{json.dumps(field)}: {raw}}}"


@pytest.fixture
async def sender(rest: Rest) -> Sender:
    """A customer with a connected account."""
    await rest.own(ACCOUNT)
    return Sender(rest, await rest.ok("GET", "/openapi.json", token=None))


async def works_still(sender: Sender) -> None:
    """After all that: nothing was a failure, and the service lists what it has."""
    for queue in ("notify", "submit", "notifications", "mailboxes"):
        await sender.rest.ok("PUT", f"/v1/settings/queue/{queue}", {"paused": False})
    for path in ("/v1/accounts?pageSize=1000", "/v1/oauth2", "/v1/tokens", "/v1/outbox"):
        await sender.rest.ok("GET", path)
    assert not sender.failures, f"{len(sender.failures)} of {sender.sent}:\n" + "\n".join(sender.failures[:30])


async def test_wrong_values_in_bodies_are_refused_in_the_envelope(sender: Sender) -> None:
    """Every field of every body with every kind of value that does not belong there."""

    def all_of_them() -> None:
        for method, path, one in sender.operations():
            content = one.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                continue
            url = sender.path(path, one, account=ACCOUNT)
            for kind in BAD_VALUES:
                for body in bodies(content["example"], kind):
                    sender.send(method, url, f"{kind}: {body[:300]}", body.encode())

    await asyncio.to_thread(all_of_them)
    await works_still(sender)
    assert sender.sent > 500


async def test_wrong_queries_are_refused_in_the_envelope(sender: Sender) -> None:
    """Names and values that are no text, come twice or are out of all bounds."""

    def all_of_them() -> None:
        for method, path, one in sender.operations():
            if method == "GET":
                for query in BAD_QUERIES:
                    sender.send(method, f"{sender.path(path, one, account=ACCOUNT)}?{query}", "query")

    await asyncio.to_thread(all_of_them)
    await works_still(sender)
    assert sender.sent > 300


async def test_wrong_ids_in_paths_are_refused_in_the_envelope(sender: Sender) -> None:
    """Each id of each path with what no id can be; those before it are right."""

    def all_of_them() -> None:
        for method, path, one in sender.operations():
            names = [parameter["name"] for parameter in one["parameters"] if parameter["in"] == "path"]
            content = one.get("requestBody", {}).get("content", {}).get("application/json", {})
            body = json.dumps(content["example"]).encode() if content else None
            for name in names[-1:]:
                for value in BAD_IDS:
                    ids = {"account": ACCOUNT, "queue": "submit", name: value}
                    sender.send(method, sender.path(path, one, **ids), "id", body)

    await asyncio.to_thread(all_of_them)
    await works_still(sender)
    assert sender.sent > 300


async def test_wrong_kinds_of_bodies_are_refused_in_the_envelope(sender: Sender) -> None:
    """Forms, XML, bytes and JSON in other encodings, with the type that says so; also where no body belongs."""

    def all_of_them() -> None:
        for method, path, one in sender.operations():
            for kind, body in WRONG_TYPES.items():
                sender.send(method, sender.path(path, one, account=ACCOUNT), kind, body, kind)

    await asyncio.to_thread(all_of_them)
    await works_still(sender)
    assert sender.sent > 300
