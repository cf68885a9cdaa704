"""An app with one function for every behaviour the tests of `local.host` look at."""

import asyncio
import json
import time
from datetime import UTC, datetime

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
STORAGE = "AzureWebJobsStorage"


def as_json(value: object, status: int = 200) -> func.HttpResponse:
    """A JSON answer."""
    return func.HttpResponse(json.dumps(value), status_code=status, mimetype="application/json")


# Which route wins ------------------------------------------------------------------------------------


@app.route(route="pets/{id}", methods=["GET"])
def a_pet(req: func.HttpRequest) -> func.HttpResponse:
    return as_json({"function": "a_pet", **req.route_params})


@app.route(route="pets/recent", methods=["GET", "POST"])
def recent_pets(req: func.HttpRequest) -> func.HttpResponse:
    return as_json({"function": "recent_pets"})


@app.route(route="items/{id:int}", methods=["GET"])
def item_by_number(req: func.HttpRequest) -> func.HttpResponse:
    return as_json({"function": "item_by_number", **req.route_params})


@app.route(route="items/{id:guid}", methods=["GET"])
def item_by_guid(req: func.HttpRequest) -> func.HttpResponse:
    return as_json({"function": "item_by_guid", **req.route_params})


@app.route(route="items/{name:alpha}/{part?}", methods=["GET"])
def item_by_name(req: func.HttpRequest) -> func.HttpResponse:
    return as_json({"function": "item_by_name", **req.route_params})


@app.route(route="switched-off")
def switched_off(req: func.HttpRequest) -> func.HttpResponse:
    return as_json({"function": "switched_off"})


@app.route(route="files/{*path}")
async def z_echo(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    body = req.get_body().decode("latin-1")
    return as_json(
        {
            "method": req.method,
            "url": req.url,
            "params": dict(req.params),
            "headers": dict(req.headers),
            "route": dict(req.route_params),
            "body": body,
            "function": context.function_name,
            "invocation": context.invocation_id,
        }
    )


# What becomes of an answer ---------------------------------------------------------------------------


@app.route(route="answers/{kind}")
def answers(req: func.HttpRequest) -> func.HttpResponse:
    kind = req.route_params["kind"]
    if kind == "raises":
        raise LookupError("on purpose")
    if kind == "none":
        return None
    response = func.HttpResponse("body", status_code=201)
    if kind == "header":
        response.headers["X-Name"] = "Jürgen"
    elif kind == "length":
        response.headers["Content-Length"] = "3"
    elif kind == "repeated":
        response.headers.add("X-Twice", "first")
        response.headers.add("X-Twice", "last")
    elif kind == "cookies":
        attributes = "Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=60"
        response.headers.add("Set-Cookie", f"session=a+b/c==; {attributes}")
        response.headers.add("Set-Cookie", "theme=dark")
        response.headers.add("Set-Cookie", "lost=1; Path=/; Sealed")
    return response


@app.route(route="text/{kind}")
def text(req: func.HttpRequest) -> str:
    described = {"body": "made", "status": 202, "headers": {"X-Described": "yes"}}
    return {"json": '{"a":1}', "described": json.dumps(described), "plain": "5"}[req.route_params["kind"]]


# Queues ----------------------------------------------------------------------------------------------


@app.route(route="send", methods=["POST"])
@app.queue_output(arg_name="out", queue_name="%SAMPLE_INBOX%", connection=STORAGE)
async def send(req: func.HttpRequest, out: func.Out[bytes]) -> func.HttpResponse:
    out.set(req.get_body())
    return func.HttpResponse(status_code=202)


@app.route(route="send-text", methods=["POST"])
@app.queue_output(arg_name="out", queue_name="sample-text", connection=STORAGE)
def send_text(req: func.HttpRequest, out: func.Out[str]) -> func.HttpResponse:
    out.set(req.get_body().decode())
    if req.params.get("then") == "fail":
        raise RuntimeError("after setting the output")
    return func.HttpResponse(status_code=202)


@app.route(route="send-list", methods=["POST"])
@app.queue_output(arg_name="out", queue_name="sample-list", connection=STORAGE)
def send_list(req: func.HttpRequest, out: func.Out[list[str]]) -> func.HttpResponse:
    out.set(req.get_json())
    return func.HttpResponse(status_code=202)


@app.queue_trigger(arg_name="msg", queue_name="%SAMPLE_INBOX%", connection=STORAGE)
@app.queue_output(arg_name="out", queue_name="sample-done", connection=STORAGE)
async def copy(msg: func.QueueMessage, out: func.Out[bytes]) -> None:
    started = time.time()
    body = msg.get_json()
    if body.get("fail"):
        raise RuntimeError("on purpose")
    await asyncio.sleep(body.get("sleep", 0))
    seen = {
        "body": body,
        "id": msg.id,
        "dequeue_count": msg.dequeue_count,
        "pop_receipt": msg.pop_receipt,
        "inserted": msg.insertion_time.isoformat(),
        "expires": msg.expiration_time.isoformat(),
        "visible": msg.time_next_visible.isoformat(),
        "started": started,
        "ended": time.time(),
    }
    out.set(json.dumps(seen).encode())


@app.queue_trigger(arg_name="msg", queue_name="sample-late", connection=STORAGE)
@app.queue_output(arg_name="out", queue_name="sample-done", connection=STORAGE)
def late(msg: func.QueueMessage, out: func.Out[bytes]) -> None:
    out.set(b'{"late": true}')


# Timers ----------------------------------------------------------------------------------------------


@app.timer_trigger(arg_name="timer", schedule="%SAMPLE_SCHEDULE%")
@app.queue_output(arg_name="out", queue_name="sample-ticks", connection=STORAGE)
async def tick(timer: func.TimerRequest, out: func.Out[bytes]) -> None:
    started = datetime.now(UTC)
    await asyncio.sleep(1.3)  # longer than the schedule's second: two runs would overlap if they could
    span = {"past_due": timer.past_due, "from": started.isoformat(), "to": datetime.now(UTC).isoformat()}
    out.set(json.dumps(span).encode())


@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *", run_on_startup=True)
@app.queue_output(arg_name="out", queue_name="sample-started", connection=STORAGE)
def yearly(timer: func.TimerRequest, out: func.Out[bytes]) -> None:
    out.set(b'{"yearly": true}')
