"""Changing HTML in place: what is found, what is left alone, and that odd markup costs no more than its length."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.html_tags import attributes, content_of, inside_body, tags
from shared.tracking import with_links, with_picture

MARKUP = st.lists(
    st.sampled_from(["<a href='http://x.example'>", "</a>", "<!--", "-->", "<body>", "</body>", '"', "'", "<", ">",
                     "<script>", "</script>", "text", " href=", "<p a=b", "\n", "</", "<html><head></head>", "é"]),
    max_size=30,
).map("".join)  # fmt: skip


@pytest.mark.parametrize(
    ("html", "inner"),
    [
        ("plain", "plain"), ("<p>x</p>", "<p>x</p>"), ("<html><body class=a>x</body></html>", "x"),
        ("<!doctype html><html><head><title>t</title></head><body>x</body>", "x"), ("<body>x", "x"),
        ("<body>a</body>b</body>c", "a</body>b"), ("<head></head><p>x", "<p>x"), ("<body <p>x", "<body <p>x"),
    ],
)  # fmt: skip
def test_the_content_is_what_the_body_holds(html: str, inner: str) -> None:
    """With or without the tags around it."""
    start, end = inside_body(html)
    if "<body <p>" in html:
        inner = "x"  # a browser takes all up to `>` for one tag, too
    assert html[start:end] == inner


def test_what_is_quoted_holds_neither_scripts_nor_a_head_nor_broken_markup() -> None:
    """Only what can stand inside another text."""
    html = "<body><base href=x>a<script>b<p></script><style>.c{}</style><meta x>d</body>"
    assert content_of(html) == "a<style>.c{}</style>d"
    assert content_of("a<b>c</b><!-- d") == "a<b>c</b>"
    assert content_of("a<script>b") == "a"
    assert content_of('a<p title="b') == "a"


def test_attributes_are_read_as_a_browser_reads_them() -> None:
    """Any quotes or none, entities resolved, in their places."""
    html = "<a one='1&amp;1' TWO=\"2\" three=3 four five = '5'>"
    (tag,) = tags(html)
    found = list(attributes(html, tag))
    assert [(one.name, one.value) for one in found] == [("one", "1&1"), ("two", "2"), ("three", "3"), ("five", "5")]
    assert [html[one.start : one.end] for one in found] == ["'1&amp;1'", '"2"', "3", "'5'"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(MARKUP)
def test_any_markup_is_read_and_only_links_change(html: str) -> None:
    """Without a link nothing changes; what is taken out of the body is in it; a picture is put in once."""
    about = {"acc": "a", "msg": "<m>"}
    changed = with_links(html, "https://m.example", about, "secret")
    links = changed.count("https://m.example/redirect?")
    assert links <= html.count("http://x.example")
    assert links > 0 or changed == html
    start, end = inside_body(html)
    assert 0 <= start <= end <= len(html)
    assert len(content_of(html)) <= len(html)
    assert with_picture(html, "https://m.example/open.gif?x").count("/open.gif?x") == 1


@pytest.mark.parametrize("piece", ["<a", "<a ", "<!--", "<body", '<a href="', "</body", "<script>", "<p a=", "'<", "&"])
def test_hundreds_of_thousands_of_broken_tags_are_read_to_the_end(piece: str) -> None:
    """In one pass: quadratic work on these would not end within the run."""
    html = piece * 200_000
    for tag in tags(html):
        for _ in attributes(html, tag) if tag.name else ():
            pass
    assert inside_body(html)[1] <= len(html)
