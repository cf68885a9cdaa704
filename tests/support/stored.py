"""Looks into the tables from the outside, and gives a test the app's own services over the same storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import TableServiceClient

from local.services import app_settings
from shared.clock import Clock, utc_now
from shared.settings import Settings
from shared.wiring import Services, build

# Rows of these say that something became of a sign-in. The others change by themselves, in the background.
LASTING = ("accounts", "links", "credentials", "oauth2apps", "tokens", "nonces", "pending")


def rows(connection_string: str, table: str) -> set[tuple[str, str]]:
    """The keys of every row of a table; none when the table does not exist."""
    with TableServiceClient.from_connection_string(connection_string) as service:
        try:
            found = list(service.get_table_client(table).list_entities(select=["PartitionKey", "RowKey"]))
        except ResourceNotFoundError:
            return set()
    return {(one["PartitionKey"], one["RowKey"]) for one in found}


def snapshot(connection_string: str) -> dict[str, set[tuple[str, str]]]:
    """The keys of every table that a sign-in writes to, and the accounts that have events."""
    taken = {table: rows(connection_string, table) for table in LASTING}
    return taken | {"events": {(partition, "") for partition, _ in rows(connection_string, "events")}}


def added(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The rows that are new, by table; tables without any are left out."""
    return {table: after[table] - before[table] for table in after if after[table] - before[table]}


@asynccontextmanager
async def services_over(
    connection_string: str, tenant_url: str, clock: Clock = utc_now, **settings: str
) -> AsyncIterator[Services]:
    """The services of a process of the app, in this process."""
    environment = app_settings(storage=connection_string, tenant_url=tenant_url) | settings
    made = build(Settings.from_env(environment), clock)
    try:
        yield made
    finally:
        await made.close()
