"""The original below an answer: a header line in the reader's language and time zone, then what was written. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, tzinfo
from html import escape
from typing import Any

from shared.clock import parse_time
from shared.html_tags import content_of, inside_body
from shared.html_text import text_of
from shared.mail_headers import one_line
from shared.messages import address_of, addresses_of, text_part

_BLOCK = "margin:0 0 0 .8ex;border-left:1px solid #ccc;padding-left:1ex"


@dataclass(frozen=True)
class _Words:
    """One language: days from Monday, months, how a moment is written, who wrote when, and the names of headers."""

    days: str
    months: str
    moment: str
    wrote: str
    forwarded: str
    labels: str  # From, Date, Subject, To, Cc


_WORDS = {
    "en": _Words(
        "Mon Tue Wed Thu Fri Sat Sun",
        "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec",
        "{day}, {month} {d}, {y} at {twelve}",
        "On {moment}, {who} wrote:",
        "Forwarded message",
        "From|Date|Subject|To|Cc",
    ),
    "et": _Words(
        "E T K N R L P",
        "jaanuar veebruar märts aprill mai juuni juuli august september oktoober november detsember",
        "{day}, {d}. {month} {y} kell {time}",
        "{moment} kirjutas {who}:",
        "Edastatud kiri",
        "Saatja|Kuupäev|Teema|Saaja|Koopia",
    ),
    "fr": _Words(
        "lun. mar. mer. jeu. ven. sam. dim.",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "{day} {d} {month} {y} à {time}",
        "Le {moment}, {who} a écrit :",
        "Message transféré",
        "De|Date|Objet|À|Cc",
    ),
    "de": _Words(
        "Mo. Di. Mi. Do. Fr. Sa. So.",
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        "{day}, {d}. {month} {y} um {time} Uhr",
        "Am {moment} schrieb {who}:",
        "Weitergeleitete Nachricht",
        "Von|Datum|Betreff|An|Cc",
    ),
    "pl": _Words(
        "pon. wt. śr. czw. pt. sob. niedz.",
        "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia",
        "{day}, {d} {month} {y} o {time}",
        "{moment} {who} napisał(a):",
        "Wiadomość przekazana dalej",
        "Od|Data|Temat|Do|DW",
    ),
    "ja": _Words(
        "月 火 水 木 金 土 日",
        "1 2 3 4 5 6 7 8 9 10 11 12",
        "{y}年{month}月{d}日({day}) {time}",
        "{moment} {who}:",
        "転送されたメッセージ",
        "差出人|日付|件名|宛先|Cc",
    ),
    "nl": _Words(
        "ma di wo do vr za zo",
        "januari februari maart april mei juni juli augustus september oktober november december",
        "{day} {d} {month} {y} om {time}",
        "Op {moment} schreef {who}:",
        "Doorgestuurd bericht",
        "Van|Datum|Onderwerp|Aan|Cc",
    ),
}


def words_of(locale: str | None) -> _Words:
    """The language of a locale such as `de-AT`; English where it is none of ours."""
    return _WORDS.get((locale or "").replace("_", "-").partition("-")[0].lower(), _WORDS["en"])


def zone(name: str | None) -> tzinfo | None:
    """The time zone of this name; None when there is none."""
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name or "")
    except (ValueError, OSError, LookupError):  # a broken name, a folder of zones, an unknown one
        return None


def quoted(
    fields: dict[str, Any], original: dict[str, Any], *, forward: bool, locale: str | None, tz: str | None
) -> dict[str, Any]:
    """The `html` and `text` of an answer with the original below them. HTML where the answer has it, or is empty and
    the original has it; text always, unless the caller gave HTML alone, from which it is derived."""
    kind, content = text_part(original)
    header = _header(original, words_of(locale), zone(tz) or UTC, forward=forward)
    html, text = fields.get("html") or "", fields.get("text") or ""
    new: dict[str, Any] = {}
    if html or (not text and kind == "html"):
        quote = content_of(content) if kind == "html" else _as_html(content)
        new["html"] = _below(html, _html_quote(header, quote, forward=forward))
    plain = text or (text_of(html) if html else "")
    below = text_of(content) if kind == "html" else content
    new["text"] = "\n\n".join(filter(None, [plain.rstrip(), _text_quote(header, below, forward=forward)]))
    return new


def _header(original: dict[str, Any], words: _Words, tz: tzinfo, *, forward: bool) -> list[str]:
    moment = _moment(original.get("sentDateTime") or original.get("receivedDateTime"), words, tz)
    who = _person(address_of(original.get("from")) or address_of(original.get("sender")))
    if not forward:
        return [words.wrote.format(moment=moment, who=who)]
    to, cc = (", ".join(map(_person, addresses_of(original.get(name)))) for name in ("toRecipients", "ccRecipients"))
    values = (who, moment, one_line(original.get("subject")), to, cc)
    named = [f"{label}: {value}" for label, value in zip(words.labels.split("|"), values, strict=True) if value]
    return [f"---------- {words.forwarded} ----------", *named]


def _moment(text: str | None, words: _Words, tz: tzinfo) -> str:
    if not text:
        return ""
    at = parse_time(text).astimezone(tz)
    return words.moment.format(
        day=words.days.split()[at.weekday()],
        month=words.months.split()[at.month - 1],
        d=at.day,
        y=at.year,
        time=f"{at:%H:%M}",
        twelve=f"{at.hour % 12 or 12}:{at:%M} {'PM' if at.hour > 11 else 'AM'}",
    )


def _person(one: dict[str, str] | None) -> str:
    """`Name <address>`, or what there is of it."""
    if one is None:
        return ""
    name = one_line(one["name"])
    return f"{name} <{one['address']}>" if name and name != one["address"] else one["address"]


def _html_quote(header: list[str], quote: str, *, forward: bool) -> str:
    shown = "<br>".join(map(escape, header))
    inner = f"<div>{quote}</div>" if forward else f'<blockquote type="cite" style="{_BLOCK}">{quote}</blockquote>'
    return f'<br><div class="quoted-message"><div>{shown}</div><br>{inner}</div>'


def _text_quote(header: list[str], content: str, *, forward: bool) -> str:
    lines = content.strip("\r\n").splitlines()
    if not forward:
        return "\n".join([*header, "", *(f"> {line}" if line else ">" for line in lines)])
    return "\n".join([*header, "", *lines])


def _below(html: str, quote: str) -> str:
    _, end = inside_body(html)
    return html[:end] + quote + html[end:]


def _as_html(text: str) -> str:
    return "<br>\n".join(escape(line) for line in text.splitlines())
