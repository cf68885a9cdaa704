"""Requests generated from the API's own description, right ones and wrong ones, against the running app.

Whatever comes: an answer that the description has, with the type and the shape that it says, never a failure of the
service; wrong data is refused, and an operation that needs a token is closed without one. The same requests are made
in every run.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

from schemathesis.checks import CHECKS, load_all_checks  # noqa: E402
from schemathesis.core.failures import Failure, FailureGroup  # noqa: E402
from schemathesis.generation import GenerationMode  # noqa: E402

from tests.api.conftest import rest  # noqa: E402, F401
from tests.support.application import Application  # noqa: E402
from tests.support.rest import Rest  # noqa: E402

POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
ALTOGETHER = {POSITIVE: 200, NEGATIVE: 300}  # requests, shared out among the operations there are
ACCOUNT = "generated-requests"
LONGEST_PATH = 6000  # a server refuses a longer line before anybody of ours sees it
# What the contract wants otherwise: an unknown method is a JSON 404, not a 405 (emailengine.md 1.1).
NOT_OURS = {"unsupported_method", "allow_header_conformance"}
HOLDING = ("/v1/changes",)  # a right request is held until something changes
# Operations whose rules are between fields, or about what is stored: right by the description is not always accepted.
RULES_BETWEEN_FIELDS = {
    "PUT /v1/settings/queue/{queue}",  # `documents` can not be paused
    "POST /v1/settings/recover",  # masked values mean nothing here
    "POST /v1/account",  # oauth2 is whole, or a sign-in begins
    "PUT /v1/account/{account}",
    "POST /v1/account/{account}/submit",  # at least one recipient; headers that can travel
    "POST /v1/oauth2",  # application access has a tenant of its own
    "POST /v1/token",  # the old name wants an account
    "POST /v1/tokens",  # metadata is a text that holds JSON
    "POST /v1/account/{account}/mailbox",  # a path is not blank
    "PUT /v1/account/{account}/mailbox",
    "POST /v1/account/{account}/message",
    "PUT /v1/account/{account}/message/{message}/move",
    "PUT /v1/account/{account}/messages",  # a folder, or messages by id
    "PUT /v1/account/{account}/messages/delete",
    "PUT /v1/account/{account}/messages/move",
    "GET /v1/blocklist/{listId}",  # a list's name is that of a host
    "POST /v1/blocklist/{listId}",
    "DELETE /v1/blocklist/{listId}",
    "POST /v1/account/{account}/export",  # the end is not before the start
    "POST /v1/templates/template",  # an account, unless the token is bound to one
}
ADVICE = (
    "The description and the answers differ. Describe it (statuses: `responses=` of the route; conversions: `Lenient` "
    "or WithJsonSchema in the field; answers: shared/api/examples.py), or, for a rule between fields, name the "
    "operation in RULES_BETWEEN_FIELDS"
)


def checks(method: str, path: str, *, once: bool) -> list[Any]:
    """All checks that there are, but those named above; the one that repeats requests without a token only once."""
    load_all_checks()
    left_out = NOT_OURS | ({"positive_data_acceptance"} if f"{method} {path}" in RULES_BETWEEN_FIELDS else set())
    left_out |= set() if once else {"ignored_auth"}
    return CHECKS.get_by_names([name for name in CHECKS.get_all_names() if name not in left_out])


class Caller:
    """Sends cases for one account and notes what was wrong, each kind once."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {app.token}"
        self.problems: dict[str, str] = {}
        self.statuses: set[int] = set()

    def send(self, case: Any, *, once: bool) -> None:
        """One request and every check on its answer."""
        if case.meta.generation.mode == POSITIVE:
            if "account" in case.path_parameters:
                case.path_parameters["account"] = ACCOUNT
            # A short wait is right, and then a 504 depends on how fast the machine is.
            case.headers.pop("x-ee-timeout", None)
        if len(case.formatted_path) > LONGEST_PATH:
            return
        response = case.call(base_url=self.app.url, session=self.session, timeout=60)
        self.statuses.add(response.status_code)
        try:
            case.validate_response(response, checks=checks(case.method, case.path, once=once))
        except FailureGroup as group:
            for failure in group.exceptions:
                self._note(case, failure, response)
        except Failure as failure:
            self._note(case, failure, response)

    def _note(self, case: Any, failure: BaseException, response: Any) -> None:
        if type(failure).__name__ == "RejectedPositiveData" and "code" in response.json():
            return  # refused for what it means, not for how it is written
        kind = f"{case.method} {case.path} {type(failure).__name__}"
        sent = f"{case.formatted_path} {case.query} {case.headers} {case.body!r}"[:1500]
        said = getattr(response, "text", "")[:600]
        text = f"{kind}: {str(failure)[:600]}\n  sent {sent}\n  got {response.status_code} {said}"
        self.problems.setdefault(kind, text)


def operations(app: Application) -> Iterator[Any]:
    """Every operation of the description as it is served; those that delete accounts or change settings come last."""
    described = requests.get(f"{app.url}/openapi.json", timeout=60).json()
    for path in HOLDING:
        described["paths"].pop(path, None)
    config = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
    schema = schemathesis.openapi.from_dict(described, config=config)
    found = [one.ok() for one in schema.get_all_operations()]
    last = ("/v1/settings", "/v1/settings/recover", "/v1/account/{account}", "/v1/account/{account}/flush")
    yield from sorted(found, key=lambda one: (one.path in last, one.method == "delete", one.path, one.method))


def run(operation: Any, mode: GenerationMode, examples: int, send: Callable[..., None]) -> None:
    """The requests of one operation."""
    sent = 0

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(operation.as_strategy(generation_mode=mode))
    def each(case: Any) -> None:
        nonlocal sent
        sent += 1
        send(case, once=sent == 1)

    each()


async def test_generated_requests_are_answered_as_described(rest: Rest) -> None:  # noqa: F811
    """Right and wrong requests for every operation, with an account that is connected."""
    await rest.own(ACCOUNT)
    caller = Caller(rest.app)
    found = list(operations(rest.app))
    for operation in found:
        run(operation, POSITIVE, ALTOGETHER[POSITIVE] // len(found) + 1, caller.send)
        if operation.body or any(True for _ in operation.iter_parameters()):
            run(operation, NEGATIVE, ALTOGETHER[NEGATIVE] // len(found) + 1, caller.send)
    for queue in ("notify", "submit", "notifications", "mailboxes"):
        await rest.ok("PUT", f"/v1/settings/queue/{queue}", {"paused": False})
    assert len(found) >= 40
    assert caller.statuses >= {200, 400, 404}
    assert not caller.problems, f"{ADVICE}\n\n" + "\n\n".join(caller.problems.values())
