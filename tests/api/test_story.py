"""The whole story of `make run`, through the host, against the tenant."""

from local.demo import play
from local.services import free_port
from tests.support.application import Application
from tests.support.tenant import Tenant


async def test_the_story_ends_well(app: Application, tenant: Tenant) -> None:
    """A person signs in, three shared mailboxes borrow her rights, one sends, and new mail reaches a webhook."""
    await tenant.reset()
    assert await play(app.url, tenant.url, free_port(), app.token)


async def test_the_story_can_be_told_twice(app: Application, tenant: Tenant) -> None:
    """What an earlier run stored, for a tenant that forgot everything since, does not stand in the way."""
    await tenant.reset()
    assert await play(app.url, tenant.url, free_port(), app.token)
