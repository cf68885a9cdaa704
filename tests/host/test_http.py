"""What the host does to requests and answers."""

import json

import aiohttp
import pytest
from yarl import URL

from tests.support.application import Application


async def test_first_function_by_name_wins_over_the_more_specific_route(sample: Application) -> None:
    """`pets/{id}` of `a_pet` hides `pets/recent` of `recent_pets`."""
    answer = await sample.call("GET", "/api/pets/recent")
    assert answer.body == {"function": "a_pet", "id": "recent"}


async def test_a_method_that_does_not_fit_lets_the_next_function_try(sample: Application) -> None:
    """A POST is not for `a_pet`, so `recent_pets` gets it."""
    assert (await sample.call("POST", "/api/pets/recent")).body == {"function": "recent_pets"}


async def test_wrong_method_is_404_and_not_405(sample: Application) -> None:
    """The host knows no 405."""
    answer = await sample.call("DELETE", "/api/pets/7")
    assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/items/7", {"function": "item_by_number", "id": "7"}),
        (
            "/api/items/6F9619FF-8B86-D011-B42D-00CF4FC964FF",
            {"function": "item_by_guid", "id": "6F9619FF-8B86-D011-B42D-00CF4FC964FF"},
        ),
        ("/API/Items/abc", {"function": "item_by_name", "name": "abc"}),
        ("/api/items/abc/left", {"function": "item_by_name", "name": "abc", "part": "left"}),
    ],
)
async def test_constraints_choose_the_function(
    sample: Application, path: str, expected: dict[str, str]
) -> None:
    """A value that breaks a constraint leaves the request to the next function."""
    assert (await sample.call("GET", path)).body == expected


@pytest.mark.parametrize("path", ["/api/items/a1", "/items/7", "/api/switched-off", "/admin/anything"])
async def test_nothing_fits_is_404(sample: Application, path: str) -> None:
    """Broken constraints, a missing prefix, disabled functions and the host's own names."""
    assert (await sample.call("GET", path)).status == 404


async def test_url_arrives_as_it_was_sent(sample: Application) -> None:
    """Path and query keep their percent-escapes; the route value is decoded except for %2F."""
    path = "/api/files/a%2Fb/J%C3%BCrgen%20x?q=%41+b"
    seen = (await sample.call("GET", path)).body
    assert seen["url"] == sample.url + path
    assert seen["route"] == {"path": "a%2Fb/Jürgen x"}
    assert seen["params"] == {"q": "A b"}


async def test_repeated_query_values_are_joined_and_empty_ones_dropped(sample: Application) -> None:
    """`a=1&a=2&b=` becomes one `a` and no `b`."""
    seen = (await sample.call("GET", "/api/files/x?a=1&a=2&b=&c")).body
    assert seen["params"] == {"a": "1,2"}


async def test_repeated_headers_are_joined_and_lower_case(sample: Application) -> None:
    """One value per lower-case name."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(sample.url + "/api/files/x", headers=[("X-A", "1"), ("X-A", "2")]) as response,
    ):
        headers = (await response.json())["headers"]
    assert headers["x-a"] == "1,2"
    assert all(name == name.lower() for name in headers)


async def test_body_with_a_length_arrives(sample: Application) -> None:
    """Any bytes, unchanged."""
    body = bytes(range(256))
    seen = (await sample.call("POST", "/api/files/x", body=body)).body
    assert seen["body"].encode("latin-1") == body


async def test_chunked_body_arrives_empty(sample: Application) -> None:
    """Without Content-Length the function sees nothing."""

    async def chunks():
        yield b"lost"

    seen = (await sample.call("POST", "/api/files/x", body=chunks())).body
    assert seen["headers"]["transfer-encoding"] == "chunked"
    assert seen["body"] == ""


async def test_context_names_the_function_and_the_invocation(sample: Application) -> None:
    """Only functions that declare `context` get it."""
    first = (await sample.call("GET", "/api/files/x")).body
    second = (await sample.call("GET", "/api/files/x")).body
    assert first["function"] == "z_echo"
    assert first["invocation"] != second["invocation"]


@pytest.mark.parametrize("kind", ["raises", "none", "header", "length"])
async def test_what_ends_in_an_empty_500(sample: Application, kind: str) -> None:
    """An exception, None, a non-ASCII header value, and a wrong Content-Length."""
    answer = await sample.call("GET", f"/api/answers/{kind}")
    assert (answer.status, answer.body) == (500, b"")


async def test_traceback_of_an_exception_is_in_the_log(sample: Application) -> None:
    """The caller learns nothing, the developer everything."""
    await sample.call("GET", "/api/answers/raises")
    log = sample.host.log_path.read_text()
    assert "answers failed" in log
    assert "LookupError: on purpose" in log


async def test_repeated_answer_header_keeps_only_the_last(sample: Application) -> None:
    """All but Set-Cookie."""
    headers = (await sample.call("GET", "/api/answers/repeated")).headers
    assert headers.getall("X-Twice") == ["last"]


async def test_cookies_are_rebuilt(sample: Application) -> None:
    """Values are percent-encoded, absent attributes left empty; an unknown flag loses the whole cookie."""
    headers = (await sample.call("GET", "/api/answers/cookies")).headers
    assert headers.getall("Set-Cookie") == [
        "session=a%2Bb%2Fc%3D%3D; max-age=60; domain=; path=/; secure; samesite=lax; httponly",
        "theme=dark; domain=; path=",
    ]


async def test_returned_json_text_is_indented(sample: Application) -> None:
    """And it is text/plain."""
    answer = await sample.call("GET", "/api/text/json")
    assert answer.body == b'{\n  "a": 1\n}'
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_returned_json_text_with_a_body_describes_the_answer(sample: Application) -> None:
    """A status, headers and body hidden in a str."""
    answer = await sample.call("GET", "/api/text/described")
    assert (answer.status, answer.body, answer.headers["X-Described"]) == (202, b"made", "yes")


@pytest.mark.parametrize("path", ["/api/pets/1", "/api/nothing", "/api/answers/raises", "/"])
async def test_custom_headers_are_on_every_answer(sample: Application, path: str) -> None:
    """Also those that an app setting adds to host.json."""
    headers = (await sample.call("GET", path)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Overridden"] == "yes"


async def test_home_page_when_no_function_takes_the_root(sample: Application) -> None:
    """The host's own page."""
    answer = await sample.call("GET", "/")
    assert (answer.status, answer.body) == (200, b"The function app is running.")


async def test_head_has_no_body(sample: Application) -> None:
    """The length is that of the body left out."""
    async with (
        aiohttp.ClientSession() as session,
        session.head(URL(sample.url + "/api/answers/plain")) as response,
    ):
        assert response.status == 201
        assert await response.read() == b""
        assert response.headers["Content-Length"] == "4"


async def test_host_status(sample: Application) -> None:
    """What a start script waits for."""
    assert (await sample.call("GET", "/admin/host/status")).body == {"state": "Running"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/admin/functions/nobody", "{}", 404),
        ("/admin/functions/a_pet", "{}", 400),
        ("/admin/functions/copy", "no json", 400),
    ],
)
async def test_runs_by_hand_that_are_refused(
    sample: Application, path: str, body: str, status: int
) -> None:
    """Unknown functions, HTTP functions, and bodies that are not JSON."""
    assert (await sample.call("POST", path, body=body.encode())).status == status


async def test_a_run_by_hand_is_accepted_at_once(sample: Application) -> None:
    """202 without waiting for the function."""
    body = json.dumps({"input": '{"fail": true}'}).encode()
    assert (await sample.call("POST", "/admin/functions/COPY", body=body)).status == 202
