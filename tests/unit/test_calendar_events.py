"""Calendar events as messageNew shows them."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.calendar_events import LARGEST, MOST_EVENTS, events_of

INVITE = """BEGIN:VCALENDAR
PRODID:-//Example//EN
VERSION:2.0
METHOD:REQUEST
BEGIN:VTIMEZONE
TZID:Europe/Berlin
BEGIN:STANDARD
DTSTART:19961027T030000
END:STANDARD
END:VTIMEZONE
BEGIN:VEVENT
UID:abc-1@contoso.example
SUMMARY;LANGUAGE=de:Planung\\, zweiter
  Teil
DESCRIPTION:Zeile 1\\nZeile 2
DTSTART;TZID=Europe/Berlin:20260302T100000
DTEND;TZID="Europe/Berlin":20260302T110000
ORGANIZER;CN="Ann: the boss";SENT-BY="mailto:x@y.example":MAILTO:ann@contoso.example
BEGIN:VALARM
DESCRIPTION:REMINDER
UID:no
END:VALARM
END:VEVENT
END:VCALENDAR
""".replace("\n", "\r\n")


def test_an_invitation_gives_every_field_of_the_contract() -> None:
    """Folded lines, escapes, parameters, zones, and nothing of the alarm inside."""
    (event,) = events_of(INVITE.encode(), INVITE, "att1")
    assert event == {
        "eventId": "abc-1@contoso.example",
        "attachment": "att1",
        "method": "REQUEST",
        "summary": "Planung, zweiter Teil",
        "description": "Zeile 1\nZeile 2",
        "timezone": "Europe/Berlin",
        "startDate": "2026-03-02T09:00:00.000Z",
        "endDate": "2026-03-02T10:00:00.000Z",
        "organizer": "ann@contoso.example",
        "filename": "invite.ics",
        "contentType": "text/calendar",
        "encoding": "base64",
        "content": base64.b64encode(INVITE.encode()).decode(),
    }


@pytest.mark.parametrize(
    ("line", "start", "zone"),
    [
        ("DTSTART:20260302T100000Z", "2026-03-02T10:00:00.000Z", "UTC"),
        ("DTSTART;VALUE=DATE:20260302", "2026-03-02", None), ("DTSTART:20260302T100000", "2026-03-02T10:00:00", None),
        ("DTSTART;TZID=W. Europe Standard Time:20260302T100000", "2026-03-02T10:00:00", "W. Europe Standard Time"),
        ("DTSTART;TZID=../../etc/passwd:20260302T100000", "2026-03-02T10:00:00", "../../etc/passwd"),
        ("DTSTART:20261399T100000Z", None, "UTC"), ("DTSTART:tomorrow", None, None), ("X:1", None, None),
    ],
)  # fmt: skip
def test_times_are_told_as_exactly_as_they_are_known(line: str, start: str | None, zone: str | None) -> None:
    """UTC where the zone is known, the local time where not, the day alone for whole days."""
    (event,) = events_of(b"x", f"BEGIN:VCALENDAR\nBEGIN:VEVENT\n{line}\nEND:VEVENT\nEND:VCALENDAR")
    assert (event.get("startDate"), event.get("timezone")) == (start, zone)
    assert event["filename"] == "event.ics"
    assert "method" not in event


def test_what_is_no_calendar_or_too_large_gives_nothing() -> None:
    """And of very many events the first."""
    assert events_of(b"hello", "hello") == []
    assert events_of(b"x" * (LARGEST + 1), INVITE) == []
    assert len(events_of(b"x", "BEGIN:VEVENT\nEND:VEVENT\n" * 1000)) == MOST_EVENTS


@given(st.text(max_size=300))
def test_nothing_that_comes_makes_an_error(text: str) -> None:
    """Whatever stands in a calendar."""
    events_of(b"x", text)
    events_of(b"x", INVITE.replace("20260302T100000", text).replace("Planung", text).replace("REQUEST", text))


@pytest.mark.parametrize(
    "piece", ['A;B="', "BEGIN:A\nEND:A\n", "BEGIN:A\n", "A;B=c,", "\r\n ", "BEGIN:VEVENT\n", "A;", "\\"]
)
def test_hostile_calendars_take_no_more_time_than_their_length_is_worth(piece: str) -> None:
    """The largest one that is read, of anything."""
    started = time.process_time()
    events_of(b"x", "BEGIN:VEVENT\nSUMMARY:" + piece * (LARGEST // len(piece)))
    assert time.process_time() - started < 20
