"""What the tests of the REST API share."""

from collections.abc import AsyncIterator

import pytest

from local.services import Azurite
from tests.support.application import Application
from tests.support.receiver import Receiver
from tests.support.rest import Hooks, Rest
from tests.support.tenant import Tenant


@pytest.fixture
async def rest(app: Application, tenant: Tenant, azurite: Azurite) -> AsyncIterator[Rest]:
    """A customer of a service without accounts, over a tenant with the usual people; tidied up afterwards."""
    await tenant.reset()
    customer = Rest(app, tenant, azurite.connection_string)
    await customer.clear()
    yield customer
    await customer.clear()


@pytest.fixture
async def hooks(rest: Rest, receiver: Receiver) -> Hooks:
    """The test's webhook receiver, told of every event of every account."""
    settings = {"webhooksEnabled": True, "webhooks": receiver.url, "webhookEvents": ["*"]}
    await rest.ok("POST", "/v1/settings", settings)
    return Hooks(receiver)
