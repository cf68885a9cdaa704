"""Every operation of the EmailEngine contract: method, path, priority; `out` is left out on purpose."""

CONTRACT = """
P1  POST    /v1/account
P1  GET     /v1/account/{account}
P1  PUT     /v1/account/{account}
P1  DELETE  /v1/account/{account}
P1  GET     /v1/accounts
P1  PUT     /v1/account/{account}/reconnect
P1  POST    /v1/authentication/form
P1  GET     /v1/account/{account}/mailboxes
P1  GET     /v1/account/{account}/messages
P1  GET     /v1/account/{account}/message/{message}
P1  GET     /v1/account/{account}/text/{text}
P1  GET     /v1/account/{account}/attachment/{attachment}
P1  GET     /v1/account/{account}/message/{message}/source
P1  POST    /v1/account/{account}/submit
P1  GET     /v1/settings
P1  POST    /v1/settings
P1  GET     /v1/oauth2
P1  GET     /v1/oauth2/{app}
P1  POST    /v1/oauth2
P1  PUT     /v1/oauth2/{app}
P2  POST    /v1/account/{account}/search
P2  PUT     /v1/account/{account}/message/{message}
P2  PUT     /v1/account/{account}/message/{message}/move
P2  DELETE  /v1/account/{account}/message/{message}
P2  PUT     /v1/account/{account}/messages
P2  PUT     /v1/account/{account}/messages/move
P2  PUT     /v1/account/{account}/messages/delete
P2  POST    /v1/account/{account}/message
P2  POST    /v1/account/{account}/message/{message}/submit
P2  POST    /v1/account/{account}/mailbox
P2  PUT     /v1/account/{account}/mailbox
P2  DELETE  /v1/account/{account}/mailbox
P2  PUT     /v1/account/{account}/flush
P2  PUT     /v1/account/{account}/sync
P2  GET     /v1/account/{account}/oauth-token
P2  GET     /v1/account/{account}/server-signatures
P2  GET     /v1/outbox
P2  GET     /v1/outbox/{queueId}
P2  DELETE  /v1/outbox/{queueId}
P2  GET     /v1/templates
P2  POST    /v1/templates/template
P2  GET     /v1/templates/template/{template}
P2  PUT     /v1/templates/template/{template}
P2  DELETE  /v1/templates/template/{template}
P2  DELETE  /v1/templates/account/{account}
P2  GET     /v1/tokens
P2  POST    /v1/tokens
P2  GET     /v1/tokens/{token}
P2  DELETE  /v1/tokens/{token}
P2  DELETE  /v1/oauth2/{app}
P2  GET     /v1/webhookRoutes
P2  GET     /v1/webhookRoutes/webhookRoute/{webhookRoute}
P2  GET     /v1/changes
P2  GET     /v1/stats
P2  GET     /v1/logs/{account}
P2  GET     /v1/license
P3  GET     /v1/settings/queue/{queue}
P3  PUT     /v1/settings/queue/{queue}
P3  GET     /v1/tokens/{token}/log
P3  POST    /v1/oauth2/{app}/verify
P3  GET     /v1/blocklists
P3  GET     /v1/blocklist/{listId}
P3  POST    /v1/blocklist/{listId}
P3  DELETE  /v1/blocklist/{listId}
P3  GET     /v1/autoconfig
P3  POST    /v1/verifyAccount
P3  POST    /v1/account/{account}/export
P3  GET     /v1/account/{account}/exports
P3  GET     /v1/account/{account}/export/{exportId}
P3  DELETE  /v1/account/{account}/export/{exportId}
P3  GET     /v1/account/{account}/export/{exportId}/download
out POST    /v1/gateway
out GET     /v1/gateway/{gateway}
out DELETE  /v1/gateway/{gateway}
out PUT     /v1/gateway/edit/{gateway}
out GET     /v1/gateways
out POST    /v1/unified/search
out POST    /v1/chat/{account}
out GET     /v1/pubsub/status
out POST    /v1/delivery-test/account/{account}
out GET     /v1/delivery-test/check/{deliveryTest}
out POST    /v1/license
out DELETE  /v1/license
"""
# Outside EmailEngine's own description, but called by its clients, by Microsoft, or by people.
BESIDE = """
P1  GET     /accounts/new
P1  POST    /accounts/new
P1  GET     /oauth
P1  POST    /oauth/msg/notification
P1  POST    /oauth/msg/lifecycle
P2  GET     /health
P2  POST    /v1/token
P2  DELETE  /v1/token/{token}
P2  GET     /v1/tokens/account/{account}
P3  GET     /open.gif
P3  GET     /redirect
P3  GET     /unsubscribe
P3  POST    /unsubscribe
P3  GET     /v1/templates/{id}
P3  POST    /v1/templates/{id}
P3  PUT     /v1/templates/{id}
P3  DELETE  /v1/templates/{id}
"""


def parsed(table: str) -> dict[tuple[str, str], str]:
    """{(method, path): priority}"""
    rows = [line.split() for line in table.strip().splitlines()]
    return {(method, path): priority for priority, method, path in rows}


DOCUMENTED = parsed(CONTRACT)
OPERATIONS = DOCUMENTED | parsed(BESIDE)
