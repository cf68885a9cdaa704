"""The app settings that the template gives, from the template alone: main.bicep's parameters through api.bicep."""

from __future__ import annotations

from typing import Any

from tests.support.bicep import INFRA, Evaluator, Unknown, body_of, properties, read

MAIN, API = INFRA / "main.bicep", INFRA / "app" / "api.bicep"
TENANT = {"tenantId": "84bd8158-6d4d-4958-8b9f-9d6445542f95"}


def settings(outputs: dict[str, dict[str, Any]], **parameters: Any) -> dict[str, str]:
    """The settings of the function app, where modules have these outputs and main.bicep these parameters."""
    main = read(MAIN)
    known: dict[str, Any] = {
        "environment": {"name": "AzureCloud"},
        "tenant": TENANT,
        "subscription": {"id": "/subscriptions/0"},
        "uniqueString": "abcdefghijklm",
        "loadJsonContent": {"functionApp": "func-"},
    }
    # A module under a condition that does not hold is null.
    known |= {name: None for name in main.modules if "if_statement" in {c.type for c in main.modules[name].children}}
    known |= {name: {"outputs": values} for name, values in outputs.items()}
    given = Evaluator(main, parameters, known).value(properties(body_of(main.modules["api"]))["params"])
    file = read(API)
    body = properties(body_of(file.resources["settings"]))["properties"]
    values = Evaluator(file, given).value(body)
    unknown = {name: value for name, value in values.items() if isinstance(value, Unknown) or "${" in str(value)}
    assert not unknown, f"not known from the template: {unknown}"
    return {name: str(value) for name, value in values.items()}
