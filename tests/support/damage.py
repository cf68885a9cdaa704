"""Records whose document is not what was written, while their keys and columns are."""

from azure.data.tables import UpdateMode

from shared.storage.tables import Table


async def damage(table: Table, partition: str, key: str) -> None:
    """Breaks the document of one record."""
    broken = {"PartitionKey": partition, "RowKey": key, "v00": b"c\0\0\0\0{broken"}
    await table._client.update_entity(broken, mode=UpdateMode.MERGE)
