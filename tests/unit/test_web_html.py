"""HTML of mails on a page: nothing runs, pictures show, and no input costs more than its length."""

import time

import pytest

from shared.message_texts import TextWish, text_view
from shared.web_html import content_ids, fragment, html_of, is_ordinary, safe, with_pictures

PICTURE = "data:image/png;base64,eHg="


@pytest.mark.parametrize(
    "html",
    [
        "<script>evil()</script>",
        "<img src=x onerror=evil()>",
        "<img src='x' onerror\n=\n'evil()'>",
        "<a href='javascript:evil()'>x</a>",
        "<a href=' java\tscr\nipt:evil()'>x</a>",
        "<a href='&#106;avascript:evil()'>x</a>",
        "<a href='data:text/html,<script>evil()</script>'>x</a>",
        "<a href='da\nta:text/html;base64,evil'>x</a>",
        "<a href='data:image/png;base64,evil'>x</a>",
        "<img src='data:text/html,evil'>",
        "<img src='data:image/svg+xml,<svg onload=evil()>'>",
        "<img src='vbscript:evil()'>",
        "<svg><script>evil()</script></svg>",
        "<svg onload=evil()>",
        "<math><mtext><table><mglyph><style><img src=x onerror=evil()>",
        "<noscript><p title='</noscript><img src=x onerror=evil()>'>",
        "<style>@import 'https://evil'</style>",
        "<p style='background:url(https://evil)'>x</p>",
        "<p style='position:fixed;behavior:url(evil)'>x</p>",
        "<iframe srcdoc='<script>evil()</script>'></iframe>",
        "<form action='https://evil'><input name=evil></form>",
        "<base href='https://evil/'>",
        "<meta http-equiv=refresh content='0;url=https://evil'>",
        "<link rel=stylesheet href='https://evil'>",
        "<object data='evil'></object><embed src='evil'>",
        "<!--[if mso]><script>evil()</script><![endif]-->",
        "<p id=evil name=evil class=evil>x</p>",
        "<title><img src=x onerror=evil()></title>",
    ],
)
def test_nothing_that_runs_or_loads_survives(html: str) -> None:
    """However it is written."""
    shown = text_view("html", html, TextWish.of("", None, True, False, False), {})["html"].lower()
    assert "evil" not in shown


def test_what_makes_a_mail_readable_survives() -> None:
    """Tables, colours, links, and pictures that are part of the mail."""
    html = (
        f'<table bgcolor="#fff" width="9"><tr><td align="left"><p style="color: red">A</p></td></tr></table>'
        f'<a href="https://x.example/?a=1&amp;b=2">B</a><img src="{PICTURE}" alt="C"><font color="red">D</font>'
    )
    shown = safe(html)
    for part in ('bgcolor="#fff"', 'align="left"', "color:red", "https://x.example/?a=1&amp;b=2", PICTURE, ">D</font>"):
        assert part in shown.replace("color: red", "color:red")
    assert 'rel="noopener noreferrer nofollow"' in shown


def test_pictures_are_put_where_they_are_referred_to() -> None:
    """In any spelling of the reference; others stay."""
    html = "<img src='cid:a@b'><img src=\"CID:a%40b\"><td background=cid:a@b><img src=cid:other>"
    assert content_ids(html) == {"a@b", "other"}
    shown = with_pictures(html, {"a@b": PICTURE})
    assert shown.count(PICTURE) == 3
    assert "cid:other" in shown


@pytest.mark.parametrize(
    ("html", "inside"),
    [
        ("<!DOCTYPE html><html><head><title>T</title></head><body class='x>y'>A<!-- c -->B</body></html>", "AB"),
        ("<p>A<!--[if mso]><b>word</b><![endif]--><![if !mso]>B<![endif]></p>", "<p>AB</p>"),
        ("A<!-- never closed", "A"),
        ("<body", "<body"),
        ("<body><p>A", "<p>A"),
        ("", ""),
    ],
)
def test_a_fragment_is_the_inside_of_the_body(html: str, inside: str) -> None:
    """Without comments and declarations."""
    assert fragment(html) == inside


def test_plain_text_becomes_html_that_shows_it() -> None:
    """Markup is text, lines are lines, nothing is nothing."""
    assert html_of("<b>&\r\nx\ry") == "<div>&lt;b&gt;&amp;<br>\nx<br>\ny</div>"
    assert html_of("") == ""


@pytest.mark.parametrize("piece", ["<!--", "<!", "<body ", "<body a='", "cid:", "<img src=cid:x>", "<", "data:image/"])
def test_the_work_grows_with_the_length_alone(piece: str) -> None:
    """Four times the input takes at most some twelve times the processor time; a square would take sixteen, so a
    thousandfold of what is felt is asked: what is quadratic here takes minutes, not parts of a second."""
    html = piece * (2_000_000 // len(piece))
    started = time.process_time()
    fragment(html)
    content_ids(html)
    with_pictures(html, {"x": "y"})
    assert time.process_time() - started < 30


@pytest.mark.parametrize(
    "html",
    ["<div>" * 100_000 + "last", "<p " + " ".join(f"a{n}" for n in range(100_000)) + ">last",
     "<p b='<' " + " ".join(f"a{n}='<'" for n in range(60_000)) + ">last"],
)  # fmt: skip
def test_html_that_would_take_minutes_is_shown_as_its_text(html: str) -> None:
    """A tree as deep as the mail is long, or a tag of nothing but attributes; the text is there."""
    assert not is_ordinary(html)
    assert "last" in safe(html)


def test_large_mails_of_the_usual_kind_keep_their_layout() -> None:
    """Tables and pictures of some megabytes."""
    picture = f'<img src="data:image/png;base64,{"A" * 1_000_000}" alt="x">'
    html = picture + "<table><tr><td style='color: red'>a few words</td></tr></table>" * 2_000 + "word " * 50_000
    assert is_ordinary(html)
    assert safe(html).count("<td") == 2_000


def test_both_parts_are_cut_and_counted_apart() -> None:
    """What is cut from either is more to come."""
    wish = TextWish.of("*", 4, False, False, False)
    assert text_view("html", "<p>abcdefg</p>", wish, {}) == {"plain": "abcd", "html": "<p>a", "hasMore": True}
    assert text_view("plain", "abc", wish, {}) == {"plain": "abc", "hasMore": False}
    assert text_view("html", "", TextWish("html"), {}) == {"html": "", "hasMore": False}
    assert text_view("html", "x", TextWish(""), {}) == {}
