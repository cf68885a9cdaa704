"""One example for every operation, by method and path: what is sent, and what comes back.

The description of the API takes from here what an answer is made of, too: `answer` tells its fields and their kinds,
`media` what it is when it is not JSON. In an answer `False` and `None` leave the kind open.

A route without an entry fails tests/contract/test_document.py; to add one: `"POST /v1/thing": Example(body={...},
answer={...})`. Values of path parameters come from PATH_VALUES unless `path` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """A request and its answer."""

    body: Any = None
    answer: Any = field(default_factory=dict)
    query: Json = field(default_factory=dict)
    path: Json = field(default_factory=dict)
    media: str = "application/json"
    answered: str = "Done"
    redirects: bool = False


APP, TEMPLATE, MESSAGE = "AAABlKx3tQAAAAAH", "AAABlKx3tQAAAAAJ", "AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0AX1"
THREAD, FOLDER = "AAQkADAwATM0MDAAMS0wMDAwLTAwMAItMDAKABAAsK", "AQMkADAwATM0MDAAMS0wMDAwLTAwMAItMDAKAC4AAAMV"
ATTACHMENT, QUEUE_ID = "ktlSQUFrQUxnQUFBQUFBSFlRREVhcG1FYzJieUFDcUFDLUVXZzBBWDGpQUFBQQ", "195569f1c3a0b4d8e21"
TOKEN, TOKEN_ID = "f05d76644ea39c4a2ee33e7bffe55808b716a34b51d67b33c7d60498b0f89bc1", "8d3a" * 16
EVENT, ENDPOINT = "f0b3a1de-6f0c-4d5b-9a44-1c7f0d2e9b11", "5f2d1c8a9b7e4f60d3c2b1a0"
EXPORT = f"exp_{ENDPOINT}"
THEN, NOW, LATER = "2026-03-01T10:00:00.000Z", "2026-03-02T08:11:05.120Z", "2026-03-03T08:11:05.120Z"
SUPPORT, RITA = {"name": "Support desk", "address": "support@contoso.example"}, {"address": "rita@contoso.example"}
ANN = {"name": "Ann", "address": "ann@fabrikam.example"}
PAGE: Json = {"total": 1, "page": 0, "pages": 1}
_ROUTE_FILTER = {"events": ["messageNew"], "accounts": ["support"], "paths": ["INBOX"], "specialUses": []}
_ROUTE: Json = {"name": "New mail", "enabled": True, "targetUrl": "https://app.example/in", "filter": _ROUTE_FILTER}
PAGED: Json = {"page": 0, "pageSize": 20}

PATH_VALUES: Json = {
    "account": "support", "app": APP, "queueId": QUEUE_ID, "token": TOKEN_ID, "queue": "submit", "id": QUEUE_ID,
    "event": EVENT, "endpoint": ENDPOINT, "message": MESSAGE, "text": MESSAGE, "attachment": ATTACHMENT,
    "template": TEMPLATE, "webhookRoute": "AAABlKx3tQAAAAAL", "listId": "news.contoso.example", "exportId": EXPORT,
    "gateway": "relay", "deliveryTest": EVENT,
}  # fmt: skip

_ACCOUNT: Json = {
    "account": "support", "name": "Support desk", "email": "support@contoso.example", "type": "delegated", "app": APP,
    "state": "connected", "syncTime": NOW, "counters": {"events": {}}, "lastError": None,
    "notifications": {"mode": "poll", "reason": "Graph sends no notifications for another person's mailbox"},
}  # fmt: skip
_OAUTH2: Json = {"auth": {"delegatedUser": "support-mbx@contoso.onmicrosoft.example", "delegatedAccount": "jane"}}
_APP: Json = {
    "id": APP, "name": "Mailboxes", "title": "Microsoft 365", "provider": "outlook", "enabled": True, "created": THEN,
    "includeInListing": True, "clientId": "0f2c7c4e-3c55-4a8e-9d7b-7d3c2b1a0f5e", "clientSecret": "******",
    "authority": "common", "extraScopes": ["Mail.ReadWrite.Shared", "Mail.Send.Shared", "User.ReadBasic.All"],
    "baseScopes": "api", "cloud": "global", "lastError": None,
}  # fmt: skip
_ENTRY: Json = {
    "queueId": QUEUE_ID, "account": "support", "source": "api", "messageId": "<7d3a@contoso.example>",
    "envelope": {"from": SUPPORT["address"], "to": [RITA["address"]]}, "subject": "Order 17", "created": NOW,
    "scheduled": LATER, "nextAttempt": False, "attemptsMade": 0, "attempts": 10, "progress": {"status": "queued"},
}  # fmt: skip
_TOKEN: Json = {
    "account": "support", "description": "Help desk", "metadata": None, "ip": None, "remoteAddress": None,
    "scopes": ["api"], "restrictions": None, "permissions": {"actions": ["read", "send"], "groups": ["message"]},
    "created": THEN, "expires": None, "access": {"time": None, "ip": None}, "id": TOKEN_ID,
}  # fmt: skip
_LETTER: Json = {
    "id": EVENT, "account": "support", "event": "messageNew", "date": THEN, "endpoint": ENDPOINT, "attemptsMade": 10,
    "failed": NOW, "error": {"reason": "The receiver answered 500", "status": 500},
}  # fmt: skip
_RESEALING: Json = {
    "state": "running", "started": NOW, "finished": None, "seen": 120, "resealed": 80, "damaged": [],
    "damagedTotal": 0, "keys": {"k2": 80},
}  # fmt: skip
_LISTED: Json = {
    "id": MESSAGE, "emailId": MESSAGE, "threadId": THREAD, "date": NOW, "flags": ["\\Seen"], "subject": "Order 17",
    "from": ANN, "to": [SUPPORT], "messageId": "<abc@fabrikam.example>", "preview": "Hello, ...",
    "text": {"id": MESSAGE, "encodedSize": {"html": 5120}},
    "attachments": [
        {"id": ATTACHMENT, "contentType": "application/pdf", "encodedSize": 48213, "inline": False,
         "filename": "order.pdf"}
    ],
}  # fmt: skip
_LIST: Json = PAGE | {"nextPageCursor": None, "prevPageCursor": None, "messages": [_LISTED]}
_READ: Json = _LISTED | {
    "path": "Inbox", "headers": {"subject": ["Order 17"]}, "messageSpecialUse": "\\Inbox",
    "text": {"id": MESSAGE, "encodedSize": {"html": 5120}, "html": "<p>Hello</p>", "hasMore": False},
}  # fmt: skip
_FLAGS: Json = {"flags": {"add": ["\\Seen"]}, "labels": {"add": ["Red"]}}
_MAIL: Json = {"to": [RITA], "subject": "Order 17", "text": "It is on its way.", "html": "<p>It is on its way.</p>"}
_QUEUED: Json = {
    "response": "Queued for delivery", "messageId": "<7d3a@contoso.example>", "sendAt": NOW, "queueId": QUEUE_ID,
}  # fmt: skip
_TEMPLATE: Json = {
    "id": TEMPLATE, "name": "Shipped", "description": "Told when an order leaves", "format": "html", "created": THEN,
    "updated": NOW,
}  # fmt: skip
_CONTENT: Json = {"subject": "Order {{params.order}}", "html": "<p>On its way, {{params.name}}.</p>"}
_UNSEEN: Json = {"search": {"unseen": True, "from": "ann@fabrikam.example"}}

# fmt: off
EXAMPLES: dict[str, Example] = {
    # -- accounts ---------------------------------------------------------------------------------------------
    "POST /v1/account": Example(
        body={"account": "support", "name": "Support desk", "email": "support@contoso.example", "oauth2": _OAUTH2},
        answer={"account": "support", "state": "new"},
    ),
    "GET /v1/account/{account}": Example(answer=_ACCOUNT | {"oauth2": _OAUTH2, "sendOnly": False, "connections": 1}),
    "PUT /v1/account/{account}": Example(body={"name": "Help desk"}, answer={"account": "support"}),
    "DELETE /v1/account/{account}": Example(answer={"account": "support", "deleted": True}),
    "PUT /v1/account/{account}/reconnect": Example(body={"reconnect": True}, answer={"reconnect": True}),
    "PUT /v1/account/{account}/sync": Example(body={"sync": True}, answer={"sync": True}),
    "PUT /v1/account/{account}/flush": Example(body={"flush": True, "notifyFrom": THEN}, answer={"flush": True}),
    "GET /v1/account/{account}/oauth-token": Example(
        answer={
            "account": "support", "user": "jane@contoso.example", "accessToken": "eyJ0eXAi...", "provider": "outlook",
            "app": APP, "registeredScopes": ["Mail.Send"], "expires": LATER, "cached": True,
        }
    ),
    "GET /v1/account/{account}/server-signatures": Example(answer={"signatures": [], "signaturesSupported": False}),
    "GET /v1/accounts": Example(
        query={"state": "connected", "query": "contoso"},
        answer=PAGE | {"query": False, "state": "*", "accounts": [_ACCOUNT]},
    ),
    "POST /v1/authentication/form": Example(
        body={"account": "jane", "email": "jane@contoso.example", "redirectUrl": "https://app.example/connected"},
        answer={"url": "https://graphpost.example/accounts/new?data=eyJhY2NvdW50...&sig=3k2f..."},
    ),
    # -- mailboxes and messages -------------------------------------------------------------------------------
    "GET /v1/account/{account}/mailboxes": Example(
        query={"counters": True},
        answer={
            "mailboxes": [
                {"id": FOLDER, "path": "Inbox", "delimiter": "/", "name": "Inbox", "listed": True, "subscribed": True,
                 "specialUse": "\\Inbox", "specialUseSource": "extension", "status": {"messages": 120, "unseen": 3}}
            ]
        },
    ),
    "POST /v1/account/{account}/mailbox": Example(
        body={"path": ["Inbox", "Invoices"]}, answer={"path": "Inbox/Invoices", "mailboxId": FOLDER, "created": True}
    ),
    "PUT /v1/account/{account}/mailbox": Example(
        body={"path": "Inbox/Invoices", "newPath": ["Inbox", "Invoices 2026"]},
        answer={
            "path": "Inbox/Invoices", "newPath": "Inbox/Invoices 2026", "mailboxId": FOLDER, "renamed": True,
        },
    ),
    "DELETE /v1/account/{account}/mailbox": Example(
        query={"path": "Inbox/Invoices"}, answer={"path": "Inbox/Invoices", "mailboxId": FOLDER, "deleted": True}
    ),
    "GET /v1/account/{account}/messages": Example(query={"path": "INBOX"} | PAGED, answer=_LIST),
    "POST /v1/account/{account}/search": Example(query={"path": "INBOX"} | PAGED, body=_UNSEEN, answer=_LIST),
    "GET /v1/account/{account}/message/{message}": Example(query={"textType": "html"}, answer=_READ),
    "GET /v1/account/{account}/text/{text}": Example(
        query={"textType": "*", "maxBytes": 65536},
        answer={"plain": "Hello", "html": "<p>Hello</p>", "hasMore": False},
    ),
    "GET /v1/account/{account}/attachment/{attachment}": Example(
        media="application/octet-stream", answered="The file, under its own content type"
    ),
    "GET /v1/account/{account}/message/{message}/source": Example(
        media="message/rfc822", answered="The mail, byte for byte"
    ),
    "PUT /v1/account/{account}/message/{message}": Example(
        body=_FLAGS,
        answer={
            "flags": {"add": ["\\Seen"], "result": ["\\Seen", "\\Flagged"]},
            "labels": {"add": ["Red"], "result": ["Red"]},
        },
    ),
    "PUT /v1/account/{account}/message/{message}/move": Example(
        body={"path": "\\Archive"}, answer={"path": "Archive", "id": MESSAGE}
    ),
    "DELETE /v1/account/{account}/message/{message}": Example(
        answer={"deleted": True, "moved": {"destination": "Deleted Items", "message": MESSAGE}}
    ),
    "PUT /v1/account/{account}/messages": Example(
        query={"path": "INBOX"}, body=_UNSEEN | {"update": _FLAGS}, answer=_FLAGS | {"emailIds": [MESSAGE]}
    ),
    "PUT /v1/account/{account}/messages/move": Example(
        query={"path": "INBOX"}, body=_UNSEEN | {"path": "\\Archive"}, answer={"path": "Archive", "emailIds": [MESSAGE]}
    ),
    "PUT /v1/account/{account}/messages/delete": Example(
        query={"path": "INBOX"},
        body={"search": {"emailIds": [MESSAGE]}},
        answer={"deleted": True, "moved": {"destination": "Deleted Items", "emailIds": [MESSAGE]}},
    ),
    "POST /v1/account/{account}/message": Example(
        body={"path": "\\Drafts", "flags": ["\\Draft"]} | _MAIL,
        answer={"id": MESSAGE, "path": "Drafts", "messageId": "<7d3a@contoso.example>"},
    ),
    # -- sending ----------------------------------------------------------------------------------------------
    "POST /v1/account/{account}/submit": Example(body=_MAIL, answer=_QUEUED),
    "POST /v1/account/{account}/message/{message}/submit": Example(body={"sendAt": LATER}, answer=_QUEUED),
    "GET /v1/outbox": Example(query=PAGED, answer=PAGE | {"messages": [_ENTRY]}),
    "GET /v1/outbox/{queueId}": Example(answer=_ENTRY),
    "DELETE /v1/outbox/{queueId}": Example(answer={"deleted": True}),
    "GET /v1/templates": Example(
        query={"account": "support"}, answer={"account": "support"} | PAGE | {"templates": [_TEMPLATE]}
    ),
    "POST /v1/templates/template": Example(
        body={"account": "support", "name": "Shipped", "content": _CONTENT},
        answer={"created": True, "account": "support", "id": TEMPLATE},
    ),
    "GET /v1/templates/template/{template}": Example(answer={"account": "support", "content": _CONTENT} | _TEMPLATE),
    "PUT /v1/templates/template/{template}": Example(
        body={"content": _CONTENT}, answer={"updated": True, "account": "support", "id": TEMPLATE}
    ),
    "DELETE /v1/templates/template/{template}": Example(
        answer={"deleted": True, "account": "support", "id": TEMPLATE}
    ),
    "DELETE /v1/templates/account/{account}": Example(
        query={"force": True}, answer={"flushed": True, "account": "support"}
    ),
    "GET /v1/blocklists": Example(answer=PAGE | {"blocklists": [{"listId": "news.contoso.example", "count": 1}]}),
    "GET /v1/blocklist/{listId}": Example(
        answer={"listId": "news.contoso.example"} | PAGE | {
            "addresses": [{"recipient": RITA["address"], "account": "support", "messageId": "<7d3a@contoso.example>",
                           "source": "api", "reason": "block", "remoteAddress": None, "userAgent": None,
                           "created": NOW}]
        }
    ),
    "POST /v1/blocklist/{listId}": Example(
        body={"account": "support", "recipient": RITA["address"]}, answer={"success": True, "added": True}
    ),
    "DELETE /v1/blocklist/{listId}": Example(query={"recipient": RITA["address"]}, answer={"deleted": True}),
    # -- applications and tokens ------------------------------------------------------------------------------
    "GET /v1/oauth2": Example(answer=PAGE | {"apps": [_APP]}),
    "GET /v1/oauth2/{app}": Example(answer=_APP | {"accounts": 12}),
    "POST /v1/oauth2": Example(
        body={
            "name": "Mailboxes", "title": "Microsoft 365", "provider": "outlook", "enabled": True,
            "clientId": _APP["clientId"], "clientSecret": "the secret", "authority": "common",
            "extraScopes": _APP["extraScopes"],
        },
        answer={"id": APP, "created": True},
    ),
    "PUT /v1/oauth2/{app}": Example(body={"enabled": True}, answer={"id": APP, "updated": True}),
    "DELETE /v1/oauth2/{app}": Example(answer={"id": APP, "deleted": True, "accounts": 12}),
    "POST /v1/oauth2/{app}/verify": Example(
        body={"account": "support", "testConnection": True},
        answer={
            "app": APP, "provider": "outlook", "authMethod": "clientSecret", "account": "support", "ok": True,
            "steps": [{"id": "token", "label": "Access token", "status": "ok", "message": None, "hint": None}],
        },
    ),
    "GET /v1/tokens": Example(
        query={"account": "support"}, answer={"account": "support"} | PAGE | {"tokens": [_TOKEN]}
    ),
    "POST /v1/tokens": Example(
        body={"account": "support", "description": "Help desk", "permissions": _TOKEN["permissions"]},
        answer={"token": TOKEN, "id": TOKEN_ID},
    ),
    "GET /v1/tokens/{token}": Example(answer=_TOKEN),
    "DELETE /v1/tokens/{token}": Example(answer={"deleted": True}),
    "GET /v1/tokens/{token}/log": Example(
        answer={"token": TOKEN_ID} | PAGE | {
            "entries": [{"time": NOW, "ip": "203.0.113.7", "method": "GET", "path": "/v1/account/support/messages",
                         "action": "read", "group": "message", "account": "support", "status": "allowed",
                         "reason": None}]
        }
    ),
    "POST /v1/token": Example(
        body={"account": "support", "description": "Help desk"}, answer={"token": TOKEN, "id": TOKEN_ID}
    ),
    "GET /v1/tokens/account/{account}": Example(answer={"tokens": [_TOKEN]}),
    "DELETE /v1/token/{token}": Example(answer={"deleted": True}),
    # -- settings and operation -------------------------------------------------------------------------------
    "GET /v1/settings": Example(
        query={"webhooks": True, "webhookEvents": True},
        answer={"webhooks": "https://app.example/webhook", "webhookEvents": ["messageNew", "messageSent"]},
    ),
    "POST /v1/settings": Example(
        body={"webhooksEnabled": True, "webhooks": "https://app.example/webhook", "webhookEvents": ["*"]},
        answer={"updated": ["webhooksEnabled", "webhooks", "webhookEvents"]},
    ),
    "GET /v1/settings/queue/{queue}": Example(
        answer={
            "queue": "submit", "jobs": {"active": 0, "delayed": 0, "paused": 0, "waiting": 4}, "paused": False,
            "poison": 0,
        }
    ),
    "PUT /v1/settings/queue/{queue}": Example(body={"paused": True}, answer={"queue": "submit", "paused": True}),
    "GET /v1/settings/queue/{queue}/poison": Example(
        answer={"queue": "submit"} | PAGE | {"messages": [{"id": QUEUE_ID, "kept": NOW, "message": "{...}"}]}
    ),
    "POST /v1/settings/queue/{queue}/poison/replay": Example(
        body={"id": QUEUE_ID}, answer={"queue": "submit", "replayed": 1, "left": 0}
    ),
    "DELETE /v1/settings/queue/{queue}/poison/{id}": Example(answer={"deleted": True}),
    "GET /v1/settings/reseal": Example(answer=_RESEALING),
    "POST /v1/settings/reseal": Example(answer=_RESEALING),
    "POST /v1/settings/recover": Example(
        body={"serviceSecret": "a new secret"}, answer={"updated": ["serviceSecret"]}
    ),
    "GET /v1/stats": Example(
        query={"seconds": 3600},
        answer={
            "version": "1.0.0", "license": False, "accounts": 12, "node": "Python 3.13", "redis": "Table Storage",
            "connections": {"connected": 12}, "counters": {"events:messageNew": 3, "webhooks:success": 3},
            "queues": {}, "build": None, "arch": "x86_64",
        },
    ),
    "GET /v1/changes": Example(
        media="text/event-stream",
        answered="State changes as they happen; the stream ends after a while and the client connects again",
        answer='data: {"account":"support","type":"state","key":"connected","payload":null}\n\n',
    ),
    "GET /v1/logs/{account}": Example(
        media="text/plain", answered="The account's log, a line for each entry", answer="No logs found for support"
    ),
    "GET /v1/license": Example(answer={"active": False, "details": False, "type": "Graphpost"}),
    "GET /v1/autoconfig": Example(
        query={"email": "ann@contoso.example"}, answer={"imap": False, "smtp": False, "_source": "unknown"}
    ),
    "POST /v1/verifyAccount": Example(
        body={"imap": False, "smtp": False},
        answer={"imap": {"success": False, "error": "...", "code": "..."}, "smtp": {"success": False}},
    ),
    # -- webhooks ---------------------------------------------------------------------------------------------
    "GET /v1/webhookRoutes": Example(answer={"total": 0, "page": 0, "pages": 0, "webhooks": []}),
    "GET /v1/webhookRoutes/webhookRoute/{webhookRoute}": Example(
        answer={
            "id": "AAABlKx3tQAAAAAL", "name": "New mail", "description": None, "created": THEN, "updated": NOW,
            "enabled": True, "targetUrl": "https://app.example/webhook", "tcount": 3, "webhookErrorFlag": None,
            "customHeaders": [], "v": 1, "content": {"fn": "", "map": ""}, "filter": _ROUTE_FILTER,
        }
    ),
    "POST /v1/webhookRoutes/webhookRoute": Example(body=_ROUTE, answer={"id": "AAABlKx3tQAAAAAL", "created": True}),
    "PUT /v1/webhookRoutes/webhookRoute/{webhookRoute}": Example(
        body={"enabled": False}, answer={"id": "AAABlKx3tQAAAAAL", "updated": True}
    ),
    "DELETE /v1/webhookRoutes/webhookRoute/{webhookRoute}": Example(
        answer={"id": "AAABlKx3tQAAAAAL", "deleted": True}
    ),
    "GET /v1/pubsub/status": Example(answer={"total": 0, "page": 0, "pages": 0, "apps": []}),
    "GET /v1/webhooks/dead": Example(query={"account": "support"}, answer=PAGE | {"events": [_LETTER]}),
    "GET /v1/webhooks/dead/{event}": Example(
        answer=_LETTER | {"payload": {"account": "support", "event": "messageNew", "data": {"id": MESSAGE}}}
    ),
    "POST /v1/webhooks/dead/{event}/replay": Example(answer={"replayed": 1}),
    "DELETE /v1/webhooks/dead/{event}": Example(answer={"deleted": True}),
    "POST /v1/webhooks/replay": Example(
        body={"account": "support", "since": THEN}, answer={"replayed": 100, "more": True}
    ),
    "GET /v1/webhooks/endpoints": Example(
        answer=PAGE | {
            "endpoints": [{"id": ENDPOINT, "url": "https://app.example/webhook", "state": "healthy", "failures": 0,
                           "failingSince": None, "lastError": None, "lastSuccess": NOW, "pausedAt": None,
                           "nextProbe": None, "held": 0}]
        }
    ),
    "POST /v1/webhooks/endpoints/{endpoint}/resume": Example(answer={"resumed": True}),
    # -- exports ----------------------------------------------------------------------------------------------
    "POST /v1/account/{account}/export": Example(
        body={"folders": ["INBOX"], "startDate": THEN, "endDate": NOW},
        answer={"exportId": EXPORT, "status": "queued", "created": NOW},
    ),
    "GET /v1/account/{account}/exports": Example(
        answer=PAGE | {"exports": [{"exportId": EXPORT, "status": "completed", "created": NOW}]}
    ),
    "GET /v1/account/{account}/export/{exportId}": Example(
        answer={"exportId": EXPORT, "status": "processing", "phase": "exporting", "created": NOW, "expiresAt": LATER}
    ),
    "DELETE /v1/account/{account}/export/{exportId}": Example(answer={"deleted": True}),
    "GET /v1/account/{account}/export/{exportId}/download": Example(
        media="application/gzip", answered="One message a line, as JSON, in gzip"
    ),
    # -- what this service does not have ----------------------------------------------------------------------
    "GET /v1/gateways": Example(answer={"total": 0, "page": 0, "pages": 0, "gateways": []}),
    # -- without a token --------------------------------------------------------------------------------------
    "GET /health": Example(answer={"success": True}),
    "GET /open.gif": Example(media="image/gif", answered="A picture of one pixel"),
    "GET /redirect": Example(media="text/html", answered="A page, when the link is wrong", redirects=True),
    "GET /unsubscribe": Example(media="text/html", answered="The page that asks"),
    "POST /unsubscribe": Example(media="text/html", answered="The page that says it is done"),
}
# fmt: on
