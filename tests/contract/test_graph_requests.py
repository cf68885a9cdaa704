"""What the app sends to Microsoft Graph, checked against the official API description."""

import base64
import json
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from local.demo import play
from local.services import free_port
from tests.support.application import Application
from tests.support.tenant import Tenant

DESCRIPTION = Path(__file__).parents[3] / "shared" / "reference" / "graph-mail-openapi-strict.yaml"
LARGE = (3_300_000, 2_500_000)
needs_description = pytest.mark.skipif(
    not DESCRIPTION.exists(), reason="the official API description is not beside the project"
)


@cache
def description() -> dict[str, Any]:
    import yaml

    loaded: dict[str, Any] = yaml.load(DESCRIPTION.read_text(), Loader=yaml.CSafeLoader)
    return loaded


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """The node itself, or what its `$ref` names."""
    reference = node.get("$ref")
    if not reference:
        return node
    found: Any = description()
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


@cache
def operations() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """Every path of the description as a pattern, literal segments before parameters."""
    found = []
    for template, item in description()["paths"].items():
        pattern = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template))
        found.append((template.count("{"), re.compile(pattern), item))
    return [(pattern, item) for _, pattern, item in sorted(found, key=lambda entry: entry[0])]


def problems_of(request: dict[str, Any]) -> list[str]:
    """What is wrong with one logged request: unknown path or method, parameter, or body."""
    path = request["path"].removeprefix("/v1.0")
    item = next((item for pattern, item in operations() if pattern.fullmatch(path)), None)
    operation = (item or {}).get(request["method"].lower())
    if item is None or operation is None:
        return [f"no operation {request['method']} {path}"]
    parameters = [resolved(one) for one in [*item.get("parameters", ()), *operation.get("parameters", ())]]
    known = {one["name"] for one in parameters if one["in"] == "query"}
    unknown = [name for name, _ in parse_qsl(request["query"]) if name not in known]
    return [f"{path}: unknown parameter {name}" for name in unknown] + body_problems(operation, request, path)


def body_problems(operation: dict[str, Any], request: dict[str, Any], path: str) -> list[str]:
    from openapi_schema_validator import OAS30Validator

    # Locally the app is plain http on loopback; in Azure it is https, which Graph demands.
    body = base64.b64decode(request["body_base64"] or "").replace(b'"http://127.0.0.1', b'"https://127.0.0.1')
    contents = resolved(operation.get("requestBody") or {}).get("content") or {}
    if not body or request.get("body_size_bytes", 0) > len(body) + 1000:
        return []  # none, or too long for the log to keep
    kind = request["headers"].get("Content-Type", "").split(";")[0]
    if kind not in contents:
        return [f"{path}: a body of {kind} is not described"]
    if kind != "application/json":
        return []
    schema = contents[kind]["schema"] | {"components": description()["components"]}
    return [f"{path}: {error.message}" for error in OAS30Validator(schema).iter_errors(json.loads(body))]


@needs_description
async def test_every_request_of_the_story_fits_the_official_description(app: Application, tenant: Tenant) -> None:
    """No misspelt path, parameter or property leaves the app."""
    await tenant.reset()
    await tenant.clear_log()
    assert await play(app.url, tenant.url, free_port(), app.token)
    structured = {
        "from": {"name": "Ann", "address": "ann@contoso.example"},
        "to": [{"address": "rita@contoso.example"}],
        "cc": [{"name": "Bob", "address": "bob@contoso.example"}],
        "subject": "As a message",
        "html": "<p>Hello <img src='cid:logo'></p>",
        "headers": {"X-Order": "17"},
        "attachments": [{"filename": "a.png", "content": "aGVsbG8=", "contentType": "image/png", "cid": "logo"}],
    }
    answer = await app.call("POST", "/v1/account/ann/submit?useStructuredFormat=true", json=structured)
    assert answer.status == 200, answer.body
    await until_sent(app, answer.body["queueId"])
    large = [{"filename": f"{size}.bin", "content": base64.b64encode(bytes(size)).decode()} for size in LARGE]
    for query in ("", "?useStructuredFormat=true"):
        mail = {"to": [{"address": "rita@contoso.example"}], "text": "x", "attachments": large}
        answer = await app.call("POST", f"/v1/account/ann/submit{query}", json=mail)
        assert answer.status == 200, answer.body
        await until_sent(app, answer.body["queueId"], tries=600)
    requests = [one for one in await tenant.log(surface="graph") if one["authorized"]]
    assert {one["method"] for one in requests} >= {"GET", "POST"}
    for ending in ("/messages", "/attachments", "/createUploadSession", "/send"):
        assert any(one["method"] == "POST" and one["path"].endswith(ending) for one in requests), ending
    assert any(b"As a message" in base64.b64decode(one["body_base64"] or "") for one in requests)
    assert [problem for request in requests for problem in problems_of(request)] == []


async def until_sent(app: Application, queue_id: str, tries: int = 100) -> None:
    import asyncio

    for _ in range(tries):
        if (await app.call("GET", f"/v1/outbox/{queue_id}")).status == 404:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the mail was not sent in time")


@needs_description
def test_the_check_itself_finds_mistakes() -> None:
    """A misspelt property, parameter or path is found, so that a clean result means something."""
    body = base64.b64encode(json.dumps({"message": {"subjct": "x"}}).encode()).decode()
    headers = {"Content-Type": "application/json"}
    mistake = {"method": "POST", "path": "/v1.0/me/sendMail", "query": "", "headers": headers}
    assert problems_of(mistake | {"body_base64": body})
    assert problems_of({"method": "GET", "path": "/v1.0/me/mails", "query": "", "headers": {}, "body_base64": ""})
    assert problems_of(
        {"method": "GET", "path": "/v1.0/me/messages", "query": "$selct=id", "headers": {}, "body_base64": ""}
    )
