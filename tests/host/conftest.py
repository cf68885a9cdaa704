"""The sample app under `local.host`, on an Azurite of its own worker."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.services import App, Azurite
from tests.support.application import Application
from tests.support.queues import StorageQueue

SAMPLE = Path(__file__).parent / "sample"
INBOX = "sample-inbox"


@pytest.fixture(scope="session")
def sample_settings(azurite: Azurite) -> dict[str, str]:
    """What the sample app needs to be set."""
    return {
        "AzureWebJobsStorage": azurite.connection_string,
        "SAMPLE_INBOX": INBOX,
        "SAMPLE_SCHEDULE": "* * * * * *",
        "AzureWebJobs.switched_off.Disabled": "true",
        "AzureFunctionsJobHost__extensions__http__CustomHeaders__X-Overridden": "yes",
    }


@pytest.fixture(scope="session")
def sample(sample_settings: dict[str, str], service_logs: Path) -> Iterator[Application]:
    """The sample app, running."""
    host = App(settings=sample_settings, folder=SAMPLE, poll_seconds=1, logs=service_logs / "sample")
    with host:
        yield Application(host)


@pytest.fixture
def queue(azurite: Azurite) -> Callable[[str], StorageQueue]:
    """Gives access to a queue by name."""
    return lambda name: StorageQueue(azurite.connection_string, name)
