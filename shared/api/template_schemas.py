"""What templates, rendering and mail merge are asked with (emailengine.md 14.5, 14.6, 16)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from shared.api.fields import Absent, AccountId, Address, Boolean, Input, Moment, Page, Text256

MOST_ENTRIES = 1000
DEEPEST = 40
MOST_VALUES = 200_000
Format = Literal["html", "markdown"]
Body = Annotated[Annotated[str, StringConstraints(max_length=5_242_880)] | None, Absent]
TemplateName = Annotated[str, StringConstraints(max_length=256, min_length=1, strip_whitespace=True)]


class Content(Input):
    """What a template puts into a mail."""

    subject: Annotated[Annotated[str, StringConstraints(max_length=10240)] | None, Absent] = None
    text: Body = None
    html: Body = None
    previewText: Annotated[Annotated[str, StringConstraints(max_length=1024)] | None, Absent] = None


class TemplateCreate(Input):
    """POST /v1/templates/template. `account` may be missing where the token is bound to one."""

    account: Annotated[AccountId | None, Absent] = None
    name: TemplateName
    description: Annotated[Annotated[str, StringConstraints(max_length=1024)] | None, Absent] = None
    format: Annotated[Format | None, Absent] = None
    content: Content


class TemplateUpdate(Input):
    """PUT /v1/templates/template/{template}: what is not given stays."""

    name: TemplateName | None = None
    description: Annotated[Annotated[str, StringConstraints(max_length=1024)] | None, Absent] = None
    format: Annotated[Format | None, Absent] = None
    content: Content | None = None

    def changes(self) -> dict[str, Any]:
        """The fields that were given; a description may be taken away, the others not."""
        given = self.given()
        return {name: value for name, value in given.items() if value is not None or name == "description"}


class TemplateList(Page):
    account: Annotated[AccountId | None, Absent] = None


class Flush(Input):
    force: Boolean = False


def _plain_values(values: Any) -> Any:
    """Values that a template can be filled with: JSON, not nested too deep, of whole characters."""
    waiting, seen = [(values, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_VALUES:
            raise ValueError(f"must be nested at most {DEEPEST} deep and hold at most {MOST_VALUES} values")
        if isinstance(value, dict):
            waiting += [(one, depth + 1) for pair in value.items() for one in pair]
        elif isinstance(value, list):
            waiting += [(one, depth + 1) for one in value]
        elif isinstance(value, str):
            _whole(value)
    return values


def _whole(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must hold whole characters") from None


def _no_values(value: Any) -> Any:
    """PHP encodes an empty object as an empty array."""
    return {} if value is None or value == [] else value


Params = Annotated[dict[str, Any], BeforeValidator(_no_values), AfterValidator(_plain_values)]


class Render(Input):
    """How the texts of a submit are filled."""

    format: Annotated[Format | None, Absent] = None
    params: Params = Field(default={})


def _off(value: Any) -> str:
    return "off" if value is False else "render"


RenderOption = (
    Annotated[Annotated[Render, Tag("render")] | Annotated[Literal[False], Tag("off")], Discriminator(_off)] | None
)


class MergeEntry(Input):
    """One recipient of a mail merge."""

    to: Address
    messageId: Annotated[Annotated[str, StringConstraints(max_length=996)] | None, Absent] = None
    params: Params = Field(default={})
    sendAt: Moment | None = None


MergeList = Annotated[list[MergeEntry], Field(min_length=1, max_length=MOST_ENTRIES)] | None
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
ListId = Annotated[
    Annotated[str, StringConstraints(max_length=200, strip_whitespace=True, pattern=rf"^{_LABEL}(?:\.{_LABEL})*$")]
    | None,
    Absent,
]
_NOT_WITH_MERGE = ("to", "cc", "bcc", "raw", "envelope", "render", "messageId")


class Mergeable(Protocol):
    """The fields of a submit that depend on each other."""

    template: str | None
    render: Any
    mailMerge: Any
    listId: str | None


def check_merge(fields: Mergeable) -> None:
    """ValueError for what can not stand together: a merge says for itself who gets what."""
    if fields.mailMerge is None:
        if fields.listId:
            raise ValueError('"listId" is only allowed together with "mailMerge"')
        if getattr(fields, "raw", None) and (fields.template or fields.render):
            name = "template" if fields.template else "render"
            raise ValueError(f'"{name}" is not allowed together with "raw"')
        return
    for name in _NOT_WITH_MERGE:
        if getattr(fields, name, None):
            where = ": name it in the entries" if name in ("to", "messageId") else ""
            raise ValueError(f'"{name}" is not allowed together with "mailMerge"{where}')


class MergeRules(Input):
    """What a submit takes for templates, rendering and mail merge."""

    template: Annotated[Text256 | None, Absent] = None
    render: RenderOption = None
    mailMerge: MergeList = None
    listId: ListId = None

    @model_validator(mode="after")
    def _whole_merge(self) -> MergeRules:
        check_merge(self)
        return self
