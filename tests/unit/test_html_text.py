"""Plain text from HTML."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.html_text import text_of


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("<p>a</p><p>b</p>", "a\n\nb"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<div>a</div><div>b</div>", "a\n\nb"),
        ("a   b\n\t c", "a b c"),
        ("&lt;b&gt; &amp; &auml; &#8364; &nbsp;x", "<b> & ä € x"),
        ("<ul><li>one</li><li>two</li></ul>", "* one\n\n* two"),
        ('<a href="https://x.example/?a=1&amp;b=2">here</a>', "here <https://x.example/?a=1&b=2>"),
        ('<a href="https://x.example">https://x.example</a>', "https://x.example"),
        ('<a href="mailto:a@b.example">write</a>', "write"),
        ('<a href="javascript:alert(1)">x</a>', "x"),
        ("<a>no target</a>", "no target"),
        ("<style>p{}</style><script>x()</script><p>seen</p>", "seen"),
        ("<head><title>t</title></head><body>seen</body>", "seen"),
        ("<!-- comment -->seen<!-- > -->", "seen"),
        ("seen<!-- never closed <p>not", "seen"),
        ("<!doctype html><?xml?>seen", "seen"),
        ('<p title="a > b">seen</p>', "seen"),
        ("<SCRIPT>if (a < b) {}</Script>seen", "seen"),
        ("price <5 or <b", "price <5 or <b"),
        ("<a data-href=x href=https://x.example>y</a>", "y <https://x.example>"),
        ("unclosed <b>bold <i>both", "unclosed bold both"),
        ("a < b and c > d", "a < b and c > d"),
        ("<p>a</p>\n\n\n<p></p><p>b</p>", "a\n\nb"),
    ],
)
def test_the_text_is_what_a_reader_sees(html: str, text: str) -> None:
    """Blocks, breaks, lists, links and entities, and nothing of what is not shown."""
    assert text_of(html) == text


def test_cells_of_a_table_do_not_run_together() -> None:
    """A row is a line, its cells are apart."""
    lines = text_of("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>").split()
    assert lines == ["a", "b", "c", "d"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(alphabet="<>/abp&;!-\"'= \n", max_size=80) | st.text(max_size=40))
def test_no_html_makes_it_fail(html: str) -> None:
    """Whatever is given, there is some text without runs of empty lines."""
    assert "\n\n\n" not in text_of(html)


@pytest.mark.parametrize(
    "unit",
    ["<div>", "<a href='http://x.example'>", "<", "&", "<!--", "</p>", "<br>", "<script>", "<a ", "</", "<![", "<?",
     "<a '", "<a \"x", "<a href=", " ", "\n", "<script", "<head>"],
)  # fmt: skip
def test_a_megabyte_of_anything_is_read_in_reasonable_time(unit: str) -> None:
    """No input takes quadratic time."""
    started = time.perf_counter()
    text_of((unit * (1_000_000 // len(unit)))[:1_000_000])
    assert time.perf_counter() - started < 10
