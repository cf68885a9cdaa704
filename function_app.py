"""Graphpost's triggers, by name, one line of work each. Everything else lives in `shared/`.

The host tries HTTP routes in the order of function names and takes the first that fits, so `rest_api`, which
takes every path, must sort last; a test guards it.
"""

from typing import List

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
STORAGE = "AzureWebJobsStorage"


# -- HTTP: the API. It is built on the first call to it, so that no other function pays for it. ---------------


@app.function_name("account_create")
@app.route(route="v1/account", methods=["POST"])
async def account_create(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    from shared.api.mount import answer

    return await answer(req, context)


@app.function_name("message_submit")
@app.route(route="v1/account/{account}/submit", methods=["POST"])
async def message_submit(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    from shared.api.mount import answer

    return await answer(req, context)


@app.function_name("oauth_callback")
@app.route(route="oauth", methods=["GET"])
async def oauth_callback(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    from shared.api.mount import answer

    return await answer(req, context)


@app.function_name("rest_api")
@app.route(route="{*path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def rest_api(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    from shared.api.mount import answer

    return await answer(req, context)


# -- HTTP: Microsoft Graph. Verify, enqueue, answer; nothing else is loaded. ----------------------------------


@app.function_name("graph_notifications")
@app.route(route="oauth/msg/notification", methods=["POST"])
@app.queue_output(arg_name="changes", queue_name="notifications", connection=STORAGE)
async def graph_notifications(req: func.HttpRequest, changes: func.Out[List[str]]) -> func.HttpResponse:
    from shared.notify_endpoint import receive

    return receive(req, changes, lifecycle=False)


@app.function_name("graph_lifecycle")
@app.route(route="oauth/msg/lifecycle", methods=["POST"])
@app.queue_output(arg_name="changes", queue_name="notifications", connection=STORAGE)
async def graph_lifecycle(req: func.HttpRequest, changes: func.Out[List[str]]) -> func.HttpResponse:
    from shared.notify_endpoint import receive

    return receive(req, changes, lifecycle=True)


# -- Queues ---------------------------------------------------------------------------------------------------


@app.function_name("send_message")
@app.queue_trigger(arg_name="msg", queue_name="outbox", connection=STORAGE)
async def send_message(msg: func.QueueMessage) -> None:
    from shared.storage.queues import parse
    from shared.wiring import services

    await services().gate.run("outbox", msg.get_body().decode(), lambda text: services().outbox.send(parse(text)))


@app.function_name("process_notifications")
@app.queue_trigger(arg_name="msg", queue_name="notifications", connection=STORAGE)
async def process_notifications(msg: func.QueueMessage) -> None:
    from shared.jobs import notification_job
    from shared.wiring import services

    await services().gate.run("notifications", msg.get_body().decode(), lambda text: notification_job(services(), text))


@app.function_name("sync_mailbox")
@app.queue_trigger(arg_name="msg", queue_name="mailboxes", connection=STORAGE)
async def sync_mailbox(msg: func.QueueMessage) -> None:
    from shared.jobs import mailbox_job
    from shared.storage.queues import parse
    from shared.wiring import services

    await services().gate.run("mailboxes", msg.get_body().decode(), lambda text: mailbox_job(services(), parse(text)))


@app.function_name("deliver_webhook")
@app.queue_trigger(arg_name="msg", queue_name="webhooks", connection=STORAGE)
async def deliver_webhook(msg: func.QueueMessage) -> None:
    from shared.storage.queues import parse
    from shared.wiring import services

    await services().gate.run(
        "webhooks", msg.get_body().decode(), lambda text: services().webhooks.deliver(parse(text))
    )


# -- Timers ---------------------------------------------------------------------------------------------------


@app.function_name("schedule_due")
@app.timer_trigger(arg_name="timer", schedule="0 * * * * *")
async def schedule_due(timer: func.TimerRequest) -> None:
    from shared.wiring import services

    await services().schedule.tick(services().clock())


@app.function_name("sweep")
@app.timer_trigger(arg_name="timer", schedule="0 17 * * * *")
async def sweep(timer: func.TimerRequest) -> None:
    from shared.jobs import sweep as sweep_all
    from shared.wiring import services

    await sweep_all(services())


@app.function_name("watch_queues")
@app.timer_trigger(arg_name="timer", schedule="0 */5 * * * *")
async def watch_queues(timer: func.TimerRequest) -> None:
    from shared.wiring import services

    await services().poison.watch()
