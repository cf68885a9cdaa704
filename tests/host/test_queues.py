"""Queue triggers and queue outputs, against Azurite."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.host.conftest import INBOX
from tests.support.application import Application
from tests.support.queues import StorageQueue

Queue = Callable[[str], StorageQueue]


async def send(sample: Application, body: dict[str, Any]) -> None:
    """Through an HTTP function with an output binding of bytes."""
    assert (await sample.call("POST", "/api/send", json=body)).status == 202


async def done(queue: Queue, count: int = 1) -> list[dict[str, Any]]:
    """What the triggered function wrote."""
    return [json.loads(text) for text in await queue("sample-done").take(count)]


async def test_a_message_reaches_the_function_with_its_properties(sample: Application, queue: Queue) -> None:
    """Id, receipt, count and times come from the storage service."""
    await send(sample, {"n": 1})
    (seen,) = await done(queue)
    assert seen["body"] == {"n": 1}
    assert seen["dequeue_count"] == 1
    assert len(seen["id"]) == 36
    assert seen["pop_receipt"]
    assert seen["inserted"] < seen["visible"] < seen["expires"]


async def test_properties_in_the_body_forge_the_message(sample: Application, queue: Queue) -> None:
    """`id` and `DequeueCount` of a JSON body win over the real ones."""
    await send(sample, {"id": "forged", "dequeueCount": 99})
    (seen,) = await done(queue)
    assert (seen["id"], seen["dequeue_count"]) == ("forged", 99)


async def test_an_output_in_the_same_host_wakes_the_poller(sample: Application, queue: Queue) -> None:
    """An idle poller sleeps for a second here, and does not wait for it."""
    await asyncio.sleep(3)
    took_s = []
    for number in range(4):
        started = time.time()
        await send(sample, {"n": number})
        (seen,) = await done(queue)
        took_s.append(seen["started"] - started)
        await asyncio.sleep(1)
    assert max(took_s) < 0.5


async def test_messages_of_a_batch_run_side_by_side(sample: Application, queue: Queue) -> None:
    """At most batchSize + newBatchThreshold = 6 of them."""
    for number in range(12):
        queue(INBOX).put(json.dumps({"n": number, "sleep": 0.7}))
    runs = await done(queue, 12)
    moments = sorted([(run["started"], 1) for run in runs] + [(run["ended"], -1) for run in runs])
    level, peak = 0, 0
    for _, step in moments:
        level += step
        peak = max(peak, level)
    assert 3 <= peak <= 6


async def test_a_failing_message_is_poison_after_max_dequeue_count(sample: Application, queue: Queue) -> None:
    """Three attempts, then `<queue>-poison`, all at once since visibilityTimeout is 0."""
    before = sample.host.log_path.read_text().count("copy failed")
    queue(INBOX).put('{"fail": true}')
    assert await queue(f"{INBOX}-poison").take() == ['{"fail": true}']
    assert sample.host.log_path.read_text().count("copy failed") == before + 3


async def test_a_message_that_is_not_base64_is_poison_unread(sample: Application, queue: Queue) -> None:
    """The function never runs."""
    before = sample.host.log_path.read_text().count("copy failed")
    queue(INBOX).put("{no base64}", raw=True)
    assert await queue(f"{INBOX}-poison").take(raw=True) == ["{no base64}"]
    assert sample.host.log_path.read_text().count("copy failed") == before


async def test_the_trigger_does_not_create_its_queue(sample: Application, queue: Queue) -> None:
    """It waits until somebody else does."""
    assert not queue("sample-late").exists()
    queue("sample-late").put("{}")
    assert await done(queue) == [{"late": True}]


async def test_a_run_by_hand_gets_its_input(sample: Application, queue: Queue) -> None:
    """Without any queue."""
    body = json.dumps({"input": '{"by": "hand"}'}).encode()
    await sample.call("POST", "/admin/functions/copy", body=body)
    (seen,) = await done(queue)
    assert seen["body"] == {"by": "hand"}


async def test_json_text_is_indented_and_its_dates_shortened(sample: Application, queue: Queue) -> None:
    """What `Out[str]` does to JSON."""
    await sample.call("POST", "/api/send-text", body=b'{"a":{"b":1},"t":"2026-01-01T00:00:00.500Z"}')
    (text,) = await queue("sample-text").take()
    assert text == '{\n  "a": {\n    "b": 1\n  },\n  "t": "2026-01-01T00:00:00.5Z"\n}'


async def test_json_array_becomes_several_messages(sample: Application, queue: Queue) -> None:
    """One per element."""
    await sample.call("POST", "/api/send-text", body=b'[1, "x", {"a": 1}]')
    assert sorted(await queue("sample-text").take(3)) == ["1", "x", '{\n  "a": 1\n}']


async def test_list_of_str_becomes_several_messages(sample: Application, queue: Queue) -> None:
    """One per item, as they are."""
    await sample.call("POST", "/api/send-list", json=["one", '{"a":1}'])
    assert sorted(await queue("sample-list").take(2)) == ["one", '{"a":1}']


async def test_text_that_only_looks_like_json_fails_the_invocation(sample: Application) -> None:
    """After the function ended well."""
    assert (await sample.call("POST", "/api/send-text", body=b"{broken}")).status == 500


async def test_nothing_is_written_when_the_function_fails_later(sample: Application, queue: Queue) -> None:
    """An output is only sent when the function returns."""
    assert (await sample.call("POST", "/api/send-text?then=fail", body=b"unsent")).status == 500
    assert queue("sample-text").drain() == []


@pytest.mark.parametrize(("size", "status"), [(49_152, 202), (49_153, 500)])
async def test_a_message_may_have_48_kib(sample: Application, queue: Queue, size: int, status: int) -> None:
    """64 KiB once encoded."""
    assert (await sample.call("POST", "/api/send-text", body=b"x" * size)).status == status
    assert [len(text) for text in queue("sample-text").drain()] == ([size] if status == 202 else [])


async def test_output_is_on_the_queue_before_the_answer(sample: Application, queue: Queue) -> None:
    """A 202 may be believed."""
    await sample.call("POST", "/api/send-text", body=b"there")
    assert queue("sample-text").drain() == ["there"]
