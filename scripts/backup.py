"""Copies what can not be made anew out of a storage account, and back into an empty one.

    python scripts/backup.py save FOLDER
    python scripts/backup.py restore FOLDER [--with-waiting-mail]

Which account: STORAGE_ACCOUNT_NAME (an output of azd; signed in with `az login`, with the roles of GRANT_DEPLOYER), or
AzureWebJobsStorage with a connection string. Needs the packages of requirements.txt.

Saved are accounts, sign-ins, OAuth2 apps, tokens, settings, places in mailboxes, dead letters, and waiting mail with
its contents. Everything secret in it is sealed: without the key ring the copy opens nothing, so keep it elsewhere.

A restored place in a mailbox is that of the copy: what came since is told by webhooks, under the ids it was told under.
Waiting mail is left out unless asked for, because what was sent since the copy would be sent again. Restore into an
account that nothing uses, and start the app afterwards: the hourly sweep takes every account up.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

# What the app has beside these is made anew when it is missing, or belongs to a moment that is over.
KEPT = (
    "accounts", "links", "credentials", "oauth2apps", "tokens", "settings", "cursors", "markers", "undelivered",
    "events", "schedule", "poison",
)  # fmt: skip
WAITING = ("outbox", "idempotency")
OPTIONAL = ("templates", "blocklists", "changefeed")  # where a version of the app has them
CONTAINER = "bodies"
FORMAT = 1
Entity = dict[str, Any]


def encode(value: Any) -> Any:
    """A property's value as JSON: what JSON has no form for carries its kind."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"time": value.isoformat()}
    if hasattr(value, "edm_type"):  # 64-bit numbers come as a pair of value and type
        return {"int64": int(value.value)}
    return value


def decode(value: Any) -> Any:
    """The value again."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "bytes":
        return base64.b64decode(content)
    if kind == "time":
        return datetime.fromisoformat(content)
    from azure.data.tables import EdmType, EntityProperty

    return EntityProperty(content, EdmType.INT64)


class Storage:
    """The clients of one account."""

    def __init__(self) -> None:
        from azure.data.tables import TableServiceClient
        from azure.storage.blob import BlobServiceClient

        text = os.environ.get("AzureWebJobsStorage", "")  # noqa: SIM112 - Azure's spelling
        name = os.environ.get("STORAGE_ACCOUNT_NAME", "")
        if text:
            self.tables = TableServiceClient.from_connection_string(text)
            self.blobs = BlobServiceClient.from_connection_string(text)
        elif name:
            from azure.identity import AzureCliCredential

            suffix = os.environ.get("STORAGE_SUFFIX", "core.windows.net")
            who = AzureCliCredential()
            self.tables = TableServiceClient(f"https://{name}.table.{suffix}", credential=who)
            self.blobs = BlobServiceClient(f"https://{name}.blob.{suffix}", credential=who)
        else:
            raise ValueError("set STORAGE_ACCOUNT_NAME, or AzureWebJobsStorage to a connection string")

    def table_names(self) -> set[str]:
        """The tables there are."""
        return {table.name for table in self.tables.list_tables()}

    def entities(self, table: str) -> Iterator[Entity]:
        """Every record of a table, as JSON can hold it."""
        for entity in self.tables.get_table_client(table).list_entities():
            yield {name: encode(value) for name, value in entity.items()}

    def is_used(self) -> bool:
        """Whether there are accounts in it."""
        return "accounts" in self.table_names() and any(True for _ in self.entities("accounts"))


def save(storage: Storage, folder: Path) -> dict[str, int]:
    """Writes the copy; how many records of each table, and blobs. An interrupted one has no `copy.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "copy.json").unlink(missing_ok=True)
    there, counts = storage.table_names(), {}
    for table in (*KEPT, *WAITING, *OPTIONAL):
        if table not in there:
            continue
        with gzip.open(folder / f"{table}.jsonl.gz", "wt", encoding="utf-8") as file:
            counts[table] = 0
            for entity in storage.entities(table):
                file.write(json.dumps(entity, separators=(",", ":")) + "\n")
                counts[table] += 1
    counts[CONTAINER] = save_bodies(storage, folder / CONTAINER)
    (folder / "copy.json").write_text(json.dumps({"format": FORMAT, "records": counts}, indent=2))
    return counts


def save_bodies(storage: Storage, folder: Path) -> int:
    """Copies the contents of waiting mail; how many. Names may hold slashes, so files bear the name encoded."""
    folder.mkdir(exist_ok=True)
    container, count = storage.blobs.get_container_client(CONTAINER), 0
    if not container.exists():
        return 0
    for blob in container.list_blobs():
        file = folder / base64.urlsafe_b64encode(blob.name.encode()).decode()
        try:
            file.write_bytes(container.download_blob(blob.name).readall())
        except Exception as problem:
            if getattr(problem, "status_code", 0) != 404:  # sent meanwhile
                raise
            file.unlink(missing_ok=True)
            continue
        count += 1
    return count


def restore(storage: Storage, folder: Path, *, waiting: bool) -> dict[str, int]:
    """Writes the copy into the account; how many records of each table. Running it again repairs a broken-off run."""
    copy = json.loads((folder / "copy.json").read_text())
    if copy["format"] != FORMAT:
        raise ValueError(f"the copy is of format {copy['format']}, this reads {FORMAT}")
    counts = {}
    for table in copy["records"]:
        if table == CONTAINER or (table in WAITING and not waiting):
            continue
        storage.tables.create_table_if_not_exists(table)
        client, counts[table] = storage.tables.get_table_client(table), 0
        with gzip.open(folder / f"{table}.jsonl.gz", "rt", encoding="utf-8") as file:
            for line in file:
                client.upsert_entity({name: decode(value) for name, value in json.loads(line).items()}, mode="replace")
                counts[table] += 1
    if waiting:
        counts[CONTAINER] = restore_bodies(storage, folder / CONTAINER)
    return counts


def restore_bodies(storage: Storage, folder: Path) -> int:
    """Brings the contents of waiting mail back; how many."""
    container = storage.blobs.get_container_client(CONTAINER)
    if not container.exists():
        container.create_container()
    files = list(folder.iterdir())
    for file in files:
        container.upload_blob(base64.urlsafe_b64decode(file.name).decode(), file.read_bytes(), overwrite=True)
    return len(files)


def main(arguments: list[str]) -> int:
    """Runs it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("save", "restore"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--with-waiting-mail", action="store_true", help="mail that was sent since is sent again")
    parser.add_argument("--into-used", action="store_true", help="although the account has records")
    wanted = parser.parse_args(arguments)
    try:
        storage = Storage()
        if wanted.what == "save":
            counts = save(storage, wanted.folder)
        elif storage.is_used() and not wanted.into_used:
            raise ValueError("the account has records: restore into an empty one, or say --into-used")
        else:
            counts = restore(storage, wanted.folder, waiting=wanted.with_waiting_mail)
    except (OSError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 1
    for name, count in counts.items():
        print(f"  {name}: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
