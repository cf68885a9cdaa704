"""The calendar events in a mail's iCalendar parts (RFC 5545), as messageNew shows them (emailengine.md 18.4). Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from shared.clock import iso

MOST_EVENTS = 20
LARGEST = 200_000  # bytes of one iCalendar file that is read and handed on
_LONGEST_VALUE = 20_000
_PARAMETER = r';[A-Za-z0-9-]{1,60}=(?:"[^"]*+"|[^";:,]*+)(?:,(?:"[^"]*+"|[^";:,]*+))*+'
_LINE = re.compile(rf"([A-Za-z0-9-]{{1,60}})((?:{_PARAMETER})*+):")
_WHEN = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?", re.ASCII)
Properties = dict[str, tuple[str, str]]  # name -> (parameters, value)


def events_of(content: bytes, text: str, attachment: str | None = None, filename: str = "") -> list[dict[str, Any]]:
    """The events of one iCalendar file: `content` as it travels on, `text` as it reads. Empty when it is none, or
    over the limit."""
    if len(content) > LARGEST:
        return []
    found: list[dict[str, Any]] = []
    method = ""
    for kind, properties in _components(text):
        if kind == "VCALENDAR":
            method = properties.get("METHOD", ("", ""))[1].strip().upper()
        elif kind == "VEVENT" and len(found) < MOST_EVENTS:
            found.append(_view(properties))
    encoded = base64.b64encode(content).decode()
    shared = {
        "attachment": attachment,
        "method": method or None,
        "filename": filename or ("invite.ics" if method else "event.ics"),
        "contentType": "text/calendar",
        "encoding": "base64",
        "content": encoded,
    }
    shared = {name: value for name, value in shared.items() if value is not None}
    return [one | shared for one in found]


def _components(text: str) -> Iterator[tuple[str, Properties]]:
    """VCALENDAR with its own properties first, then each VEVENT with those that stand directly in it."""
    calendar: Properties = {}
    events: list[Properties] = []
    stack: list[str] = []
    for line in re.sub(r"\r?\n[ \t]", "", text).splitlines():
        head = _LINE.match(line)
        if head is None:
            continue
        name, value = head[1].upper(), line[head.end() :][:_LONGEST_VALUE]
        if name == "BEGIN":
            stack.append(value.strip().upper())
            if stack[-1] == "VEVENT":
                events.append({})
        elif name == "END":
            del stack[-1:]
        elif stack[-1:] == ["VCALENDAR"]:
            calendar.setdefault(name, (head[2], value))
        elif stack[-1:] == ["VEVENT"]:
            events[-1].setdefault(name, (head[2], value))
    if calendar or events:
        yield "VCALENDAR", calendar
    yield from (("VEVENT", one) for one in events)


def _view(properties: Properties) -> dict[str, Any]:
    start, zone = _moment(properties.get("DTSTART"))
    end, _ = _moment(properties.get("DTEND"))
    organizer = properties.get("ORGANIZER", ("", ""))[1].strip()
    shown = {
        "eventId": properties.get("UID", ("", ""))[1].strip(),
        "summary": _text(properties.get("SUMMARY")),
        "description": _text(properties.get("DESCRIPTION")),
        "timezone": zone,
        "startDate": start,
        "endDate": end,
        "organizer": re.sub(r"^mailto:", "", organizer, flags=re.IGNORECASE),
    }
    return {name: value for name, value in shown.items() if value}


def _text(given: tuple[str, str] | None) -> str:
    escaped = {"n": "\n", "N": "\n"}
    return re.sub(r"\\(.)", lambda found: escaped.get(found[1], found[1]), given[1]).strip() if given else ""


def _moment(given: tuple[str, str] | None) -> tuple[str, str]:
    """(time, zone): UTC where it can be told, else the local time of that zone without an offset; a date alone for
    an event of whole days."""
    parameters, value = given or ("", "")
    parts = _WHEN.match(value.strip())
    if parts is None:
        return "", ""
    named = re.search(r";TZID=\"?([^\";:,]{1,100})", parameters, re.IGNORECASE)
    zone = named[1] if named else "UTC" if parts[7] else ""
    if parts[4] is None:
        return f"{parts[1]}-{parts[2]}-{parts[3]}", zone
    try:
        local = datetime.fromisoformat("{}-{}-{}T{}:{}:{}".format(*parts.groups()))
        known = UTC if zone == "UTC" else _zone(zone)
        return (iso(local.replace(tzinfo=known)) if known else local.isoformat()), zone
    except (ValueError, OverflowError):
        return "", zone


def _zone(name: str) -> Any:
    """The zone of an IANA name; None for another kind of name, as Outlook writes them."""
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name) if re.fullmatch(r"[A-Za-z_+-]+(?:/[A-Za-z0-9_+-]+){0,2}", name) else None
    except (KeyError, ValueError, OSError):
        return None
