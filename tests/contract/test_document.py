"""The API's description of itself: valid, whole, with an example on every operation, and stable in its names."""

import json
from typing import Any
from unittest.mock import Mock

import pytest
from fastapi.routing import iter_route_contexts
from jsonschema import Draft202012Validator

from shared.api.app import create_app
from shared.api.around_routes import ABSENT
from shared.api.document import IDEMPOTENT, document, operation_id, operations
from shared.api.examples import EXAMPLES
from tests.contract.operations import OPERATIONS

Json = dict[str, Any]


@pytest.fixture(scope="module")
def described() -> Json:
    """The description as it is served."""
    made: Json = json.loads(json.dumps(document(create_app(Mock()))))
    return made


def by_name(described: Json) -> dict[str, Json]:
    """{"GET /v1/accounts": operation}"""
    return {f"{method} {path}": one for method, path, one in operations(described)}


def errors(described: Json, schema: Json, value: Any) -> list[str]:
    """What a value lacks to fit a schema of the description."""
    whole = {**schema, "components": described["components"]}
    return [f"{'/'.join(map(str, one.path))}: {one.message}" for one in Draft202012Validator(whole).iter_errors(value)]


def test_the_description_is_valid_openapi(described: Json) -> None:
    """Version 3.1, and nothing in it that generators stumble over."""
    from openapi_spec_validator import OpenAPIV31SpecValidator, validate

    assert described["openapi"].startswith("3.1.")
    validate(described, cls=OpenAPIV31SpecValidator)


def test_every_operation_has_an_example(described: Json) -> None:
    """A route without one shows nothing on the page at /docs."""
    missing = [name for name in by_name(described) if name not in EXAMPLES]
    lines = [f'    "{name}": Example(answer={{...}}),' for name in missing]
    assert not missing, "shared/api/examples.py needs these entries in EXAMPLES:\n" + "\n".join(lines)


def test_every_example_belongs_to_an_operation(described: Json) -> None:
    """Examples of operations that are no longer there, or never will be, are noticed."""
    known = {f"{method} {path}" for method, path in OPERATIONS} | set(by_name(described))
    assert set(EXAMPLES) - known == set()


def test_every_body_that_is_asked_for_has_an_example_that_fits(described: Json) -> None:
    """What /docs sends at the first click is what the operation takes."""
    for name, one in by_name(described).items():
        if "requestBody" not in one:
            assert name not in EXAMPLES or EXAMPLES[name].body is None, f"{name} takes no body"
            continue
        content = one["requestBody"]["content"]["application/json"]
        assert "example" in content, f'{name} takes a body: its entry in shared/api/examples.py needs body={{...}}'
        problems = errors(described, content["schema"], content["example"])
        assert not problems, f"{name}: the body in shared/api/examples.py does not fit: {problems}"


def test_every_query_of_an_example_is_a_parameter_and_fits(described: Json) -> None:
    """No example names a parameter that the operation refuses."""
    for name, one in by_name(described).items():
        given = {parameter["name"]: parameter for parameter in one["parameters"] if parameter["in"] == "query"}
        unknown = set(EXAMPLES[name].query) - set(given)
        assert not unknown, f"{name}: shared/api/examples.py gives {unknown}, the route takes {sorted(given)}"
        for parameter in given.values():
            if "example" in parameter:
                assert not errors(described, parameter["schema"], parameter["example"]), (name, parameter)


def test_every_path_parameter_is_described(described: Json) -> None:
    """Each `{name}` of a path with an example value that is no invention of the moment."""
    for name, one in by_name(described).items():
        for parameter in one["parameters"]:
            if parameter["in"] == "path":
                text = f"{name}: PATH_VALUES in shared/api/examples.py lacks {parameter['name']}"
                assert parameter["example"] != parameter["name"], text


def test_every_guarded_operation_names_its_token_and_its_refusals(described: Json) -> None:
    """Two ways to give the token, the group and action it must allow, and each refusal in the one envelope."""
    for name, one in by_name(described).items():
        if not name.partition(" ")[2].startswith("/v1/"):
            continue
        assert one["security"] == [{"bearer": []}, {"access_token": []}], name
        assert set(one["x-permission"]) == {"group", "action"}, name
        assert set(one["responses"]) >= {"200", "400", "401", "403", "404", "503"}, name
        assert "422" not in one["responses"], name
        assert {parameter["name"] for parameter in one["parameters"]} >= {"x-ee-timeout"}, name
    envelope = described["components"]["schemas"]["Error"]
    assert envelope["required"] == ["statusCode", "error", "message"]
    for refusal in described["components"]["responses"].values():
        assert refusal["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}


def test_operations_are_named_after_what_a_client_sees(described: Json) -> None:
    """The id follows from method and path, so that generated clients do not change with our code."""
    found = [one["operationId"] for one in by_name(described).values()]
    assert len(set(found)) == len(found)
    assert found == [operation_id(method, path) for method, path, _ in operations(described)]
    assert "getV1AccountAccount" in found


def test_every_operation_says_what_it_does(described: Json) -> None:
    """A summary that fits a line, and a tag to find it by."""
    for name, one in by_name(described).items():
        assert 0 < len(one["summary"]) <= 100, (name, one["summary"])
        assert len(one["tags"]) == 1, name


def test_idempotency_is_offered_where_it_works(described: Json) -> None:
    """The header is on those operations alone that read it."""
    offered = {
        name
        for name, one in by_name(described).items()
        if any(parameter["name"] == "Idempotency-Key" for parameter in one["parameters"])
    }
    assert offered == IDEMPOTENT & set(by_name(described))


def test_every_route_under_v1_is_in_the_description(described: Json) -> None:
    """Left out are pages for people, the description itself, other names of the same, and what only says that it is
    not served."""
    shown = {(method, path) for method, path, _ in operations(described)}
    aliases = {(method, "/v1/templates/{template}") for method in ("GET", "POST", "PUT", "DELETE")}
    absent = {(method, path) for method, path, *_ in ABSENT}
    for route in iter_route_contexts(create_app(Mock()).routes):
        for method in route.methods or ():
            is_api = (route.path or "").startswith("/v1/")
            assert (method, route.path) in shown | aliases | absent or not is_api, route.path
