"""The page at /docs in a real browser, without a network beyond the app: reading, finding, calling."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.browser.test_pages import ARGUMENTS, CHROMIUM, CONTRASTS, SCREENSHOTS, SIZES, playwright
from tests.support.application import Application

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture
async def browser(app: Application) -> AsyncIterator[Any]:
    """A browser that reaches the app and nothing else."""
    async with playwright.async_playwright() as driver:
        launched = await driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        await launched.close()


class Reader:
    """A person with the page open, and what the browser complained about or asked others for."""

    def __init__(self, page: Any, app: Application) -> None:
        self.page, self.app = page, app
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        # An operation that is refused is what some steps are about.
        if message.type in ("error", "warning") and "responded with a status of" not in message.text:
            self.complaints.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.app.url, "data:", "blob:")):
            self.foreign.append(request.url)

    async def open(self, operation: str = "") -> Any:
        """The block of an operation, opened by its link; without one the page alone."""
        await self.page.goto(f"{self.app.url}/docs{'#' + operation if operation else ''}")
        await self.page.locator("details.operation").first.wait_for()
        return self.page.locator(f"#{operation}") if operation else None


async def reader(browser: Any, app: Application, scheme: str = "light", size: str = "wide") -> Reader:
    """Somebody new, before a screen of this size."""
    width, height = SIZES[size]
    context = await browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": height}, reduced_motion="reduce"
    )
    return Reader(await context.new_page(), app)


async def test_every_operation_is_listed_and_shows_its_example(browser: Any, app: Application) -> None:
    """All of /openapi.json is on the page, each operation opens, and nothing comes from elsewhere."""
    person = await reader(browser, app)
    described = (await app.call("GET", "/openapi.json", token=None)).body
    ids = [one["operationId"] for item in described["paths"].values() for one in item.values()]
    await person.open()
    assert await person.page.title() == "The API · Graphpost"
    shown = await person.page.eval_on_selector_all("details.operation", "all => all.map(one => one.id)")
    assert sorted(shown) == sorted(ids)
    await person.page.evaluate("document.querySelectorAll('details.operation').forEach(one => { one.open = true })")
    await person.page.wait_for_function(f"document.querySelectorAll('pre.curl').length === {len(ids)}")
    await person.page.evaluate("document.querySelectorAll('details.more').forEach(one => { one.open = true })")
    await person.page.wait_for_function("document.querySelectorAll('table').length > 50")
    assert "curl -X POST" in await person.page.locator("#postV1AccountAccountSubmit pre.curl").inner_text()
    assert (person.complaints, person.foreign) == ([], [])


async def test_an_operation_is_called_with_the_token_and_its_answer_shown(browser: Any, app: Application) -> None:
    """Without a token the refusal is shown, with one the answer; the page never shows the token."""
    person = await reader(browser, app)
    block = await person.open("getV1Accounts")
    await block.locator("button", has_text="Send").click()
    await block.locator(".status", has_text="401").wait_for()
    await person.page.locator("#token").fill(app.token)
    await block.locator("label", has_text="pageSize").locator("input").fill("5")
    await block.locator("button", has_text="Send").click()
    await block.locator(".status", has_text="200").wait_for()
    assert '"accounts": [' in await block.locator(".answer pre").inner_text()
    shown = await block.locator("pre.curl").inner_text()
    assert f"{app.url}/v1/accounts?pageSize=5" in shown
    assert 'Authorization: Bearer $TOKEN' in shown
    assert app.token not in await person.page.locator("body").inner_text()
    assert (person.complaints, person.foreign) == ([], [])


async def test_a_body_is_sent_as_it_was_written(browser: Any, app: Application) -> None:
    """The example stands in the field, may be changed, and a wrong field is named in the answer."""
    person = await reader(browser, app)
    block = await person.open("postV1Tokens")
    await person.page.locator("#token").fill(app.token)
    await block.locator("textarea").fill('{"description": "it\'s <b>mine</b>", "nonsense": 1}')
    assert "it'\\''s <b>mine</b>" in await block.locator("pre.curl").inner_text()
    await block.locator("button", has_text="Send").click()
    await block.locator(".status", has_text="400").wait_for()
    assert '"key": "nonsense"' in await block.locator(".answer pre").inner_text()
    assert person.complaints == []


async def test_operations_are_found_by_words(browser: Any, app: Application) -> None:
    """Method, path and what it does are searched; groups without a hit vanish."""
    person = await reader(browser, app)
    await person.open()
    await person.page.locator("#search").fill("delete outbox")
    assert await person.page.locator("details.operation:visible").count() == 1
    assert await person.page.locator("main h2:visible").all_inner_texts() == ["Outbox"]
    await person.page.locator("#list a:visible").click()
    await person.page.locator("#deleteV1OutboxQueueId[open]").wait_for()
    assert person.complaints == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_fits_its_screen(browser: Any, app: Application, scheme: str, size: str) -> None:
    """Nothing sticks out, buttons fit a finger, and text stands out, wide or on a phone, light or dark."""
    person = await reader(browser, app, scheme, size)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    await person.open()
    await person.page.screenshot(path=SCREENSHOTS / f"docs-{scheme}-{size}.png")
    block = await person.open("postV1AccountAccountSubmit")
    await person.page.locator("#token").fill(app.token)
    await block.locator("button", has_text="Send").click()
    await block.locator(".status").wait_for()
    await block.locator("details.more summary").first.click()
    await block.screenshot(path=SCREENSHOTS / f"docs-operation-{scheme}-{size}.png")
    assert await person.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    for element in await person.page.locator("button:visible, input:visible").all():
        assert (await element.bounding_box())["height"] >= 44
    looked_at = "'h1, h2, h3, p, button, a, .method, th, td'"
    ratios = await person.page.evaluate(CONTRASTS.replace("'h1, p, button, a'", looked_at))
    assert len(ratios) > 100
    assert [one for one in ratios if one[1] < 4.5] == []
    assert person.complaints == []


async def test_the_page_allows_no_script_but_its_own(app: Application) -> None:
    """The policy names this service alone, without inline scripts or styles, and everything is one small file each."""
    page = await app.call("GET", "/docs", token=None)
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    text = page.body.decode()
    assert re.findall(r"(?:src|href)=\"([^\"]+)\"", text) == [
        "data:,", "/docs/explorer.css", "#main", "/openapi.json", "/openapi.json", "/docs/explorer.js",
    ]  # fmt: skip
    assert "<script>" not in text
    assert "style=" not in text
    for name, kind in (("explorer.js", "text/javascript"), ("explorer.css", "text/css")):
        answer = await app.call("GET", f"/docs/{name}", token=None)
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith(kind)
