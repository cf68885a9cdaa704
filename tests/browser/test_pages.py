"""The pages a person sees, in a real browser: from the link to the end of the sign-in and through its failures.

Screenshots of every page, light and dark, wide and narrow, are written to `.local/screenshots/`.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from local.services import LOCAL, LOOPBACK
from tests.support.application import Application
from tests.support.people import ANN, JOHN, People
from tests.support.tenant import Tenant

playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")

SCREENSHOTS = LOCAL / "screenshots"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
SIZES = {"wide": (1280, 800), "phone": (360, 740)}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


@dataclass
class Landing:
    """The client's own page at the end of a sign-in."""

    url: str = ""
    visits: list[dict[str, list[str]]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Keeps the query, and shows that the person has arrived."""
        if request.path == "/done":
            self.visits.append(parse_qs(request.query_string))
        return web.Response(text="<!doctype html><link rel=icon href=data:,><h1>Back</h1>", content_type="text/html")


@pytest.fixture
async def landing() -> AsyncIterator[Landing]:
    """A small server for redirectUrl."""
    made = Landing()
    application = web.Application()
    application.router.add_get("/{tail:.*}", made.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, 0).start()
    made.url = f"http://{LOOPBACK}:{runner.addresses[0][1]}/done?tab=mail"
    yield made
    await runner.cleanup()


@pytest.fixture
async def people(app: Application, tenant: Tenant) -> AsyncIterator[People]:
    """A service with two apps to choose from."""
    await tenant.reset()
    made = People(app, tenant)
    await made.remove_everything()
    await made.register(title="Microsoft 365")
    await made.register(title="Contoso partners")
    yield made
    await made.remove_everything()


@dataclass
class Eyes:
    """A browser and everything it complained about."""

    browser: Any
    complaints: list[str] = field(default_factory=list)

    async def page(self, scheme: str = "light", size: str = "wide") -> Any:
        """A new tab of a new person; its console and its failed requests are watched."""
        width, height = SIZES[size]
        context = await self.browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": height}, reduced_motion="reduce"
        )
        page = await context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def _console(self, message: Any) -> None:
        # Chromium reports an error status of the page itself on the console; these are what the test is about.
        if message.type in ("error", "warning") and "the server responded with a status of" not in message.text:
            self.complaints.append(message.text)


@pytest.fixture
async def eyes() -> AsyncIterator[Eyes]:
    """A browser; at the end of the test nothing may have been complained about."""
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        made = Eyes(browser)
        yield made
        await browser.close()
    assert made.complaints == []


async def look(page: Any, name: str) -> None:
    """A screenshot for people, and what every page must have for everybody."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
    assert await page.evaluate("document.documentElement.lang") == "en"
    assert await page.locator("h1").count() == 1
    assert await page.locator("main").count() == 1
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    assert await page.evaluate("document.scripts.length") == 0
    for element in await page.locator("button, a.button").all():
        box = await element.bounding_box()
        assert box["height"] >= 44, "too small for a finger"


async def test_a_person_signs_in_with_a_browser(people: People, landing: Landing, eyes: Eyes) -> None:
    """From the link through the choice and Microsoft's page to the client's own page, with clicks alone."""
    page = await eyes.page()
    await page.goto(await people.form(account="ann", email=ANN, redirectUrl=landing.url))
    assert await page.title() == "Connect a mailbox · Graphpost"
    await page.get_by_role("button", name="Contoso partners").click()
    await page.get_by_role("button", name="Ann Smith").click()
    await page.wait_for_url("**/done?*")
    assert await page.locator("h1").inner_text() == "Back"
    assert landing.visits == [{"tab": ["mail"], "account": ["ann"], "state": ["new"]}]
    await people.in_state("ann", "connected")


async def test_a_person_signs_in_with_the_keyboard_alone(people: People, landing: Landing, eyes: Eyes) -> None:
    """Every step can be reached with Tab, is visibly focused, and is taken with Enter or Space."""
    page = await eyes.page()
    await page.goto(await people.form(account="ann", redirectUrl=landing.url, expectedEmail=ANN))
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent.trim()") == "Microsoft 365"
    outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent.trim()") == "Contoso partners"
    await page.keyboard.press("Space")
    await page.get_by_role("button", name="John Doe").wait_for()
    await page.get_by_role("button", name="John Doe").focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Another account is expected").wait_for()
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent.trim()") == "Sign in with another account"
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Ann Smith").wait_for()
    await page.get_by_role("button", name="Ann Smith").focus()
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/done?*")
    assert landing.visits[0]["account"] == ["ann"]


async def test_cancelling_ends_on_a_page_that_says_so(people: People, landing: Landing, eyes: Eyes) -> None:
    """Who presses Cancel at Microsoft sees that nothing was changed, and can begin again with the link."""
    page = await eyes.page()
    link = await people.form(account="ann", redirectUrl=landing.url)
    await page.goto(link)
    await page.get_by_role("button", name="Microsoft 365").click()
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("heading", name="Sign-in did not finish").wait_for()
    assert "Nothing was changed." in await page.locator("main").inner_text()
    await page.goto(link)
    assert await page.get_by_role("button", name="Microsoft 365").count() == 1


async def test_branding_of_the_service_is_shown(people: People, eyes: Eyes) -> None:
    """The service's own name stands in title and page."""
    await people.api("POST", "/v1/settings", {"pageBrandName": "Fabrikam & Söhne <Post>"})
    try:
        page = await eyes.page()
        await page.goto(await people.form())
        assert await page.title() == "Connect a mailbox · Fabrikam & Söhne <Post>"
        assert await page.locator(".brand").inner_text() == "Fabrikam & Söhne <Post>"
    finally:
        await people.api("POST", "/v1/settings", {"pageBrandName": None})


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_fits_its_screen(people: People, eyes: Eyes, scheme: str, size: str) -> None:
    """Choice, failure, mismatch and end, with long texts: nothing sticks out, and every button fits a finger."""
    page = await eyes.page(scheme, size)
    long_title = "Microsoft 365 of the Contoso subsidiary for Customer-Communication-Infrastructure"
    await people.register(title=long_title)
    address = "a.very.long.address.of.somebody@subsidiary-with-a-long-name.contoso.example"
    await page.goto(await people.form(account="ann", email=address))
    await look(page, f"choice-{scheme}-{size}")

    app_id = (await people.api("GET", "/v1/oauth2"))["apps"][0]["id"]
    await page.goto(await people.form(account="ann", expectedEmail=address, type=app_id))
    await page.get_by_role("button", name="John Doe").click()
    assert JOHN in await page.locator("main").inner_text()
    await look(page, f"mismatch-{scheme}-{size}")

    await people.tenant.login_errors(token_errors=[{"aadsts": 7000215}])
    await page.goto(await people.form(account="ann", type=app_id))
    await page.get_by_role("button", name="Ann Smith").click()
    await look(page, f"failed-{scheme}-{size}")

    link = await people.form(account="ann", redirectUrl="https://myapp.example/settings?tab=mail", type=app_id)
    done = await people.visit(await people.approve(await people.authorize_address(link)))
    # Shown without its refresh, which would leave it at once.
    await page.set_content(done.body.decode().replace('http-equiv="refresh"', "data-stopped"))
    await look(page, f"done-{scheme}-{size}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_from_its_background(people: People, eyes: Eyes, scheme: str) -> None:
    """Every text of a page has the contrast of WCAG AA: at least 4.5 to 1."""
    page = await eyes.page(scheme)
    await page.goto(f"{people.app.url}/accounts/new")
    failed = await page.evaluate(CONTRASTS)
    await page.goto(await people.form())
    choice = await page.evaluate(CONTRASTS)
    assert len(failed) >= 3
    assert len(choice) >= 3
    assert all(ratio >= 4.5 for _, ratio in [*failed, *choice]), (failed, choice)


CONTRASTS = """
() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const parts = color => {
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = color => {
    const [r, g, b] = parts(color).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (color !== 'rgba(0, 0, 0, 0)') return color;
    }
    return 'white';
  };
  return [...document.querySelectorAll('h1, p, button, a')].map(element => {
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
    return [element.textContent.trim().slice(0, 30), (a + .05) / (b + .05)];
  });
}
"""
