"""What whole-request tests share: one Azurite, one tenant and one app per test worker.

All of them start only when a test first asks. They are real programs on free ports; a test that stops
or kills one starts it again before it ends.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from local import services
from local.tenant.world import World
from tests.support import graph_contract
from tests.support.application import Application
from tests.support.graph_contract import Observer
from tests.support.receiver import Receiver
from tests.support.tenant import Tenant
from tests.support.workshop import Workshop


@pytest.fixture(scope="session")
def service_logs(request: pytest.FixtureRequest) -> Path:
    """Where this worker's programs write their logs."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "main")
    return services.LOGS / "tests" / worker


@pytest.fixture(scope="session")
def azurite(service_logs: Path) -> Iterator[services.Azurite]:
    """Storage in memory; use its `connection_string`."""
    with services.Azurite(logs=service_logs) as storage:
        yield storage


@pytest.fixture(scope="session")
def app_port() -> int:
    """The app's port, known before either the tenant or the app starts."""
    return services.free_port()


@pytest.fixture(scope="session")
def tenant(app_port: int, service_logs: Path, graph_observer: Observer) -> Iterator[Tenant]:
    """The local Microsoft 365 tenant and its control routes; its journal is observed."""
    journal = service_logs / "graph.jsonl" if graph_contract.is_available() else None
    if journal:
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.unlink(missing_ok=True)
        graph_observer.watch(journal)
    url = f"http://{services.LOOPBACK}:{app_port}"
    with services.Tenant(service_url=url, journal=journal, logs=service_logs) as service:
        yield Tenant(service)


@pytest.fixture(scope="session")
def graph_observer() -> Observer:
    """What compares every exchange at Graph with the official description."""
    observer = Observer()
    if graph_contract.is_available():
        World.journal = staticmethod(observer.take)
    return observer


@pytest.fixture(scope="module", autouse=True)
def graph_contract_of_this_module(graph_observer: Observer) -> Iterator[None]:
    """After every module: what the app sent to Graph and what the tenant answered was as Microsoft describes it."""
    yield
    problems = graph_observer.problems()
    assert not problems, "at Microsoft Graph, during the tests of this file:\n" + "\n".join(problems)


@pytest.fixture(scope="session")
def app(
    azurite: services.Azurite, tenant: Tenant, app_port: int, service_logs: Path
) -> Iterator[Application]:
    """Graphpost itself, answering HTTP, polling its queues and firing its timers."""
    settings = services.app_settings(storage=azurite.connection_string, tenant_url=tenant.url)
    settings |= {"AzureFunctionsJobHost__extensions__queues__visibilityTimeout": "00:00:01"}  # retry soon
    settings |= {"OAUTH_TOKENS_API": "true", "CHANGES_HOLD_SECONDS": "2"}
    with services.App(app_port, settings=settings, poll_seconds=0.2, logs=service_logs) as host:
        yield Application(host)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A webhook receiver of this one test."""
    listening = await Receiver().start()
    yield listening
    await listening.stop()


@pytest.fixture(scope="session")
def quiet_azurite(service_logs: Path) -> Iterator[services.Azurite]:
    """Storage that no app polls, for tests that run the app's services themselves."""
    with services.Azurite(logs=service_logs / "quiet") as storage:
        yield storage


@pytest.fixture
async def workshop(quiet_azurite: services.Azurite) -> AsyncIterator[Workshop]:
    """The app's services in this process, with a tenant and a clock of this one test."""
    made = await Workshop(quiet_azurite.connection_string).start()
    yield made
    await made.stop()
