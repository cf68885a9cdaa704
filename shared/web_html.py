"""HTML of a mail made fit for a page: pictures put in, what is only for mail programs taken out, and made safe.

What comes here is megabytes from anywhere: every step takes one pass, and safety is nh3's work alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape, unescape
from urllib.parse import unquote

from shared.html_text import text_of

SMALL = 200_000  # characters up to which even the worst tag takes about a second
MOST_TAGS = 20_000
MOST_WORDS = 2_000  # in one tag
_CID = re.compile(r"""cid:([^\s"'<>()]++)""", re.IGNORECASE)
_BODY = re.compile(r"<body(?=[\s>/])", re.IGNORECASE)
_BODY_END = re.compile(r"</body\s*+>", re.IGNORECASE)
_TAG = re.compile(r"""<[a-zA-Z](?:[^>"']|"[^"]*+"|'[^']*+')*+>""")
_PICTURE = re.compile(r"data:image/[a-z0-9.+-]++;base64,[a-z0-9+/=]*+", re.IGNORECASE)
_BLANK = re.compile(r"[\x00-\x20\x7f-\xa0\xad]+")

_DROPPED = frozenset(
    "applet embed frame iframe math noembed noframes noscript object script style svg template textarea title "
    "xml".split()
)
_MORE_TAGS = frozenset({"font"})
_LAYOUT = frozenset(
    "align bgcolor border cellpadding cellspacing color dir face height lang size style title valign width".split()
)
# Of styles, only properties that place nothing outside of their box and load nothing.
_STYLES = frozenset(
    "background-color border border-bottom border-bottom-color border-bottom-style border-bottom-width border-collapse "
    "border-color border-left border-left-color border-left-style border-left-width border-radius border-right "
    "border-right-color border-right-style border-right-width border-spacing border-style border-top border-top-color "
    "border-top-style border-top-width border-width color direction display font font-family font-size font-style "
    "font-variant font-weight height letter-spacing line-height list-style-type margin margin-bottom margin-left "
    "margin-right margin-top max-height max-width min-height min-width padding padding-bottom padding-left "
    "padding-right padding-top table-layout text-align text-decoration text-indent text-transform vertical-align "
    "white-space width word-break word-spacing word-wrap".split()
)


def html_of(text: str) -> str:
    """HTML that shows plain text, its lines kept."""
    lines = escape(text, quote=False).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "<div>" + "<br>\n".join(lines) + "</div>" if text else ""


def content_ids(html: str) -> set[str]:
    """The content ids that the HTML refers to."""
    return {_content_id(found[1]) for found in _CID.finditer(html)}


def with_pictures(html: str, pictures: Mapping[str, str]) -> str:
    """The HTML with each reference to one of these content ids replaced by its `data:` URI."""
    return _CID.sub(lambda found: pictures.get(_content_id(found[1]), found[0]), html)


def _content_id(text: str) -> str:
    return unquote(unescape(text))


def fragment(html: str) -> str:
    """What a page can hold of the HTML: the inside of its body, without comments and what mail programs put there."""
    html = _without(_without(html, "<!--", "-->"), "<!", ">")
    start = _BODY.search(html)
    tag = _TAG.match(html, start.start()) if start else None
    if tag is None:
        return html
    end = _BODY_END.search(html, tag.end())
    return html[tag.end() : end.start() if end else len(html)].strip()


def _without(html: str, begin: str, end: str) -> str:
    """The text without everything between these marks; what never ends goes to the end."""
    kept, at = [], 0
    while (found := html.find(begin, at)) >= 0:
        kept.append(html[at:found])
        closed = html.find(end, found + len(begin))
        if closed < 0:
            return "".join(kept)
        at = closed + len(end)
    return "".join([*kept, html[at:]])


def is_ordinary(html: str) -> bool:
    """False for HTML whose tree would take time by the square: very many elements, which may all lie in each other, or
    very many attributes in one."""
    if html.count("<") > MOST_TAGS:
        return False
    words = 0
    for piece in html.split("<")[1:] if len(html) > SMALL else ():
        tag, ends, text = piece.rpartition(">")
        words += len((tag if ends else text).split())
        if words > MOST_WORDS:
            return False
        words = 0 if ends else words
    return True


def safe(html: str) -> str:
    """The HTML without anything that runs, loads documents or reaches outside of its place on a page. HTML that is
    out of the ordinary is shown as its text."""
    import nh3

    if not is_ordinary(html):
        html = html_of(text_of(html))
    attributes = {tag: set(names) for tag, names in nh3.ALLOWED_ATTRIBUTES.items()}
    attributes["*"] = set(_LAYOUT)
    return nh3.clean(
        html,
        tags=set(nh3.ALLOWED_TAGS) | _MORE_TAGS,
        clean_content_tags=set(_DROPPED),
        attributes=attributes,
        attribute_filter=_checked,
        url_schemes={"http", "https", "mailto", "tel", "data"},
        filter_style_properties=set(_STYLES),
        link_rel="noopener noreferrer nofollow",
    )


def _checked(tag: str, name: str, value: str) -> str | None:
    """The value of an attribute, or None to drop it: data only as a picture."""
    bare = _BLANK.sub("", value)
    if bare[:5].lower() != "data:":
        return value
    return bare if (tag, name) == ("img", "src") and _PICTURE.fullmatch(bare) else None
