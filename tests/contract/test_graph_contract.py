"""The check of all exchanges at Graph (tests/support/graph_contract.py) finds what is wrong and nothing else."""

import base64
import json
from typing import Any

import pytest

from local.tenant.world import World
from tests.support import graph_contract
from tests.support.graph_contract import Exchange, answer_problems, request_problems
from tests.support.workshop import ANN, Workshop

pytestmark = pytest.mark.skipif(not graph_contract.is_available(), reason=graph_contract.MISSING)
SDK = {"user-agent": "python-httpx/0.28.1 kiota-python/1.16.0", "content-type": "application/json"}


def exchange(method: str, path: str, body: Any = None, status: int = 200, answer: Any = None, **more: Any) -> Exchange:
    """An exchange as the journal has it."""

    def packed(value: Any) -> str:
        return base64.b64encode(b"" if value is None else json.dumps(value).encode()).decode()

    kind = {} if answer is None else {"content-type": "application/json"}
    return {
        "method": method, "path": f"/v1.0{path}", "headers": SDK | more.get("headers", {}), "body": packed(body),
        "status": status, "answer_headers": kind, "answer": packed(answer),
    }  # fmt: skip


def test_misspelt_requests_are_found() -> None:
    """A property, parameter, path, method, header or value that Graph does not know."""
    wrong = [
        exchange("POST", "/me/sendMail", {"message": {"subjct": "x"}}),
        exchange("POST", "/me/sendMail", {"message": {"subject": 5}}),
        exchange("POST", "/me/sendMail"),
        exchange("GET", "/me/mails"),
        exchange("PUT", "/me/messages"),
        exchange("GET", "/me/messages?$selct=id"),
        exchange("GET", "/me/messages?$top=all"),
        exchange("GET", "/me/messages?$top=5&$top=6"),
        exchange("GET", "/me/messages", headers={"x-odd": "1"}),
        exchange("POST", "/$batch", {"requests": [{"id": "1", "method": "GET", "url": "/me/mails"}]}),
        exchange("POST", "/me/sendMail", {"message": {}}, headers={"content-type": "text/html"}),
    ]
    assert [one["path"] for one in wrong if not request_problems(one)] == []
    right = exchange("GET", "/users/ann%40contoso.example/mailFolders/inbox/messages?$select=id&$top=5")
    assert request_problems(right) == []
    assert request_problems(exchange("POST", "/me/sendMail", {"message": {"subject": None}})) == []


def test_wrong_answers_are_found() -> None:
    """A status, a type or a shape that Graph does not answer."""
    wrong = [
        exchange("POST", "/me/sendMail", {"message": {}}, status=200),
        exchange("GET", "/me/messages/x", answer={"subject": 5}),
        exchange("GET", "/me/messages/x", answer={"receivedDateTime": "yesterday"}),
        exchange("GET", "/me/messages/x", status=404, answer={"message": "gone"}),
        exchange("GET", "/me/unknown", answer={}),
        exchange("GET", "/me/messages/x"),
    ]
    assert [one["path"] for one in wrong if not answer_problems(one)] == []
    assert answer_problems(exchange("GET", "/me/messages/x", answer={"subject": None, "@odata.etag": "1"})) == []


async def test_every_tenant_of_the_run_is_observed(workshop: Workshop) -> None:
    """Tenants in the test's process hand over what they are asked and what they answer; so does the running one."""
    assert World.journal is not None
    seen: list[Exchange] = []
    workshop.world.journal = seen.append
    await workshop.own(ANN)
    asked = {(one["method"], one["path"].partition("?")[0]) for one in seen if graph_contract.is_ours(one)}
    assert ("GET", "/v1.0/me") in asked
    assert [problem for one in seen for problem in request_problems(one) + answer_problems(one)] == []
