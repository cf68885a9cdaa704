"""The HTML the login service shows: user choice, errors that stay here, consent, form_post."""

from __future__ import annotations

from html import escape

from aiohttp import web

from .directory import Principal

_STYLE = (
    "body{font-family:sans-serif;max-width:32rem;margin:3rem auto}"
    "button{display:block;width:100%;margin:.4rem 0;padding:.7rem;text-align:left}"
)


def _page(title: str, content: str, status: int = 200) -> web.Response:
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{content}</body></html>"
    )
    return web.Response(
        text=html, content_type="text/html", status=status, headers={"Cache-Control": "no-store"}
    )


def choose_user(
    people: list[Principal], application: str, scopes: list[str], hint: str | None
) -> web.Response:
    """One button per person; the form posts `user=<upn>` or `cancel=1` to the address it came from."""
    known = sorted(people, key=lambda p: (p.upn.lower() != (hint or "").lower(), p.upn))
    buttons = "".join(
        f'<button name="user" value="{escape(p.upn)}">'
        f"{escape(p.display_name)} &lt;{escape(p.upn)}&gt;</button>"
        for p in known
    )
    wanted = "".join(f"<li>{escape(scope)}</li>" for scope in scopes)
    return _page(
        "Pick an account",
        f"<p>{escape(application)} asks for:</p><ul>{wanted}</ul>"
        f'<form method="post">{buttons}<button name="cancel" value="1">Cancel</button></form>',
    )


def approve(application: str, scope: str) -> web.Response:
    """The administrator's consent page; posts `approve=1` or `cancel=1`."""
    return _page(
        "Permissions requested",
        f"<p>{escape(application)} asks for your organization: {escape(scope)}</p>"
        '<form method="post"><button name="approve" value="1">Accept</button>'
        '<button name="cancel" value="1">Cancel</button></form>',
    )


def stays_here(code: int, text: str) -> web.Response:
    """An error that is shown instead of being sent to the application (graph.md 12.2 [D])."""
    return _page(
        "Sign in",
        f"<p>Sorry, but we're having trouble signing you in.</p><p>AADSTS{code}: {escape(text)}</p>",
        status=400,
    )


def signed_out() -> web.Response:
    """What the logout endpoint shows without an address to go to."""
    return _page("Signed out", "<p>You signed out of your account.</p>")


def form_post(target: str, fields: dict[str, str]) -> web.Response:
    """A page that posts the fields to the application by itself (`response_mode=form_post`)."""
    inputs = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in fields.items()
    )
    return _page(
        "Working...",
        f'<form method="post" action="{escape(target)}">{inputs}'
        "<noscript><button>Continue</button></noscript>"
        "</form><script>document.forms[0].submit()</script>",
    )
