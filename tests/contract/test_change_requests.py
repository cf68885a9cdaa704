"""What changes of mailboxes send to Microsoft Graph, parts of batches too, checked against the official description."""

import base64
import json
from typing import Any
from urllib.parse import urlsplit

from tests.contract.test_graph_requests import needs_description, problems_of
from tests.support.application import Application
from tests.support.mailbox_desk import MailboxDesk
from tests.support.tenant import Tenant


def parts_of(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a batch, each as a request of its own."""
    if not request["path"].endswith("/$batch"):
        return []
    listed = json.loads(base64.b64decode(request["body_base64"]))["requests"]
    return [
        {
            "method": one["method"],
            "path": "/v1.0" + urlsplit(one["url"]).path,
            "query": urlsplit(one["url"]).query,
            "headers": one["headers"],
            "body_base64": base64.b64encode(json.dumps(one["body"]).encode()).decode() if "body" in one else "",
        }
        for one in listed
    ]


async def everything(office: MailboxDesk) -> None:
    """Each operation once."""
    for body in ({"path": "One"}, {"path": "One/Two"}):
        await office.done("POST", "/mailbox", body)
    await office.done("PUT", "/mailbox", {"path": "One/Two", "newPath": "Three"})
    ids = [await office.arrived() for _ in range(3)]
    marks = {"flags": {"add": ["\\Seen", "\\Flagged"]}, "labels": {"add": ["Red"]}}
    await office.done("PUT", f"/message/{ids[0]}", marks)
    await office.done("PUT", f"/message/{ids[0]}/move", {"path": "One"})
    for body in ({"emailIds": ids}, {"unseen": True}):
        await office.done("PUT", "/messages?path=Inbox", {"search": body, "update": marks})
    await office.done("PUT", "/messages/move?path=Inbox", {"search": {}, "path": "One"})
    await office.done("DELETE", f"/message/{ids[0]}")
    await office.done("PUT", "/messages/delete", {"search": {"emailIds": ids}})
    await office.done("PUT", "/messages/delete?force=true", {"search": {"emailIds": ids}})
    mail = {"path": "\\Drafts", "flags": ["\\Draft", "\\Flagged"], "to": {"address": "rita@contoso.example"}}
    more = {"internalDate": "2020-02-03T04:05:06Z", "headers": {"X-A": "1", "References": "<a@b>"}, "html": "<p>x</p>"}
    await office.done("POST", "/message", mail | more | {"attachments": [{"filename": "a", "content": "eA=="}]})
    raw = base64.b64encode(b"Subject: x\r\nTo: rita@contoso.example\r\nX-B: 1\r\n\r\nx").decode()
    await office.done("POST", "/message", {"path": "Inbox", "raw": raw})
    draft = await office.done("POST", "/message", {"path": "\\Drafts", "flags": ["\\Draft"], "raw": raw})
    await office.done("POST", f"/message/{draft['id']}/submit")
    await office.done("DELETE", "/mailbox?path=Three")


@needs_description
async def test_every_change_fits_the_official_description(app: Application, tenant: Tenant) -> None:
    """Paths, parameters and bodies of single calls and of the parts of batches."""
    office = await MailboxDesk(app, tenant).opened()
    await tenant.clear_log()
    await everything(office)
    requests = [one for one in await tenant.log(surface="graph") if one["authorized"]]
    parts = [part for request in requests for part in parts_of(request)]
    assert {one["method"] for one in parts} >= {"GET", "PATCH", "POST"}
    assert {one["method"] for one in requests} == {"GET", "PATCH", "POST", "DELETE"}
    assert [problem for request in [*requests, *parts] for problem in problems_of(request)] == []
    await office.close()
