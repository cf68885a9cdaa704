"""Start-up: what a fresh process loads before it can answer."""

import json
import os
import statistics
import subprocess
import sys
import time

import pytest

from local.services import ROOT
from tests.support.workshop import KEYS

ENVIRONMENT = {**os.environ, "KEY_RING": KEYS, "AzureWebJobsStorage": "UseDevelopmentStorage=true"}
FLOOR = "import azure.functions"
HANDSHAKE = """
import azure.functions as func
import function_app
class Out:
    def set(self, value): self.value = value
request = func.HttpRequest("POST", "/oauth/msg/notification", params={"account": "a"}, body=b'{"value": []}')
from shared.notify_endpoint import receive
assert receive(request, Out(), lifecycle=False).status_code == 202
"""


def seconds(program: str) -> float:
    """How long a fresh process takes for a program."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT, check=True)
    return time.perf_counter() - started


def compared(program: str, rounds: int = 7) -> float:
    """The program's time over that of the bare library, each the median of several, taken in turns."""
    pairs = [(seconds(program), seconds(FLOOR)) for _ in range(rounds)]
    return statistics.median(one for one, _ in pairs) / statistics.median(floor for _, floor in pairs)


def loaded_by(program: str) -> set[str]:
    """The modules in a fresh process after the program."""
    text = program + "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    return set(json.loads(done.stdout.decode().splitlines()[-1]))


def test_the_index_of_functions_loads_little_more_than_the_functions_library() -> None:
    """At most 1.6 times the library alone."""
    assert compared("import function_app") <= 1.6


def test_the_first_notification_of_a_fresh_process_is_answered_quickly() -> None:
    """At most four times the library alone, from nothing to 202."""
    assert compared(HANDSHAKE) <= 4


HEAVY = (
    "fastapi starlette pydantic msal msgraph msgraph_core kiota_abstractions httpx requests cryptography jinja2 "
    "azure.storage azure.data azure.identity azure.core"
).split()


@pytest.mark.parametrize("program", ["import function_app", HANDSHAKE], ids=["index", "notification"])
def test_neither_the_index_nor_a_notification_loads_a_framework_or_a_client(program: str) -> None:
    """Nothing that only other functions need."""
    loaded = loaded_by(program)
    assert [name for name in HEAVY if name in loaded] == []


def test_sending_loads_no_web_framework() -> None:
    """The queue functions do without FastAPI."""
    loaded = loaded_by("import shared.jobs, shared.wiring")
    assert {"fastapi", "starlette", "pydantic", "msgraph", "msal", "azure.storage"} & loaded == set()


def http_routes() -> list[tuple[str, str, list[str]]]:
    """(name, route, methods) of every HTTP function, in the order in which the host tries them."""
    program = """
import json, function_app
found = []
for one in function_app.app.get_functions():
    for binding in map(json.loads, one.get_raw_bindings()):
        if binding["type"] == "httpTrigger":
            found.append([one.get_function_name(), binding["route"], binding["methods"]])
print(json.dumps(sorted(found)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    return [(name, route, methods) for name, route, methods in json.loads(done.stdout)]


def test_the_route_that_takes_everything_is_tried_last() -> None:
    """The host takes the first that fits, by name."""
    routes = http_routes()
    assert len(routes) >= 6
    assert routes[-1][:2] == ("rest_api", "{*path}")
    assert all("*" not in route for _, route, _ in routes[:-1])


def test_no_two_functions_claim_the_same_path_and_method() -> None:
    """Otherwise one of them is never called."""
    claims = [(route, method) for _, route, methods in http_routes() for method in methods]
    assert len(claims) == len(set(claims))
