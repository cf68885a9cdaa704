"""Bodies in blob storage."""

from local import services
from shared.storage import blobs
from shared.storage.account import StorageAccount


async def test_long_bodies_are_stored_where_nothing_was_stored_before(quiet_azurite: services.Azurite) -> None:
    """Several at once into a container that does not exist yet: each is there whole, and in ranges."""
    import asyncio

    account = StorageAccount({"connection_string": quiet_azurite.connection_string})
    made, blobs.CONTAINER = blobs.CONTAINER, "first-bodies"
    try:
        store = blobs.Blobs(account)
        bodies = {f"b/{number}": bytes([number]) * 3_900_000 for number in range(4)}
        await asyncio.gather(*(store.put(name, body) for name, body in bodies.items()))
        # A long body is never offered to a container that is not there: it is made first, and each body sent once.
        assert account.transactions <= 2 * len(bodies)
        for name, body in bodies.items():
            assert await store.get(name) == body
            assert await store.get(name, 3_899_998, 10) == body[-2:]
        await store.close()
    finally:
        blobs.CONTAINER = made
