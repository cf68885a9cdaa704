"""Makes `local` importable and gives a seeded tenant that serves login and control."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parents[2]))

from local.tenant.world import World

from .login_tenant import Tenant, start


@pytest_asyncio.fixture
async def tenant() -> AsyncIterator[Tenant]:
    """A freshly seeded tenant on a free port."""
    world = World()
    world.seed()
    server, running = await start(world)
    yield running
    await running.session.close()
    await server.close()
