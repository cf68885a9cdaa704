"""Filling the texts of a mail (emailengine.md 14.5): from a stored template, or from the request's own fields."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from threading import Lock
from typing import Any

from shared.accounts import Record, auth_of
from shared.errors import ApiError
from shared.handlebars import Budget, Program, TemplateProblem, compiled, render
from shared.service_settings import ServiceSettings
from shared.templates import Templates

PARTS = ("subject", "text", "html", "previewText")
LONGEST = {"subject": 10_240, "previewText": 1024}
LONGEST_MARKDOWN = 500_000
MOST_MARKS = 8000
_MARKS = "[]*_|!<`~"
Fields = dict[str, Any]


class Rendering:
    """Renders the texts of submits."""

    def __init__(self, templates: Templates, settings: ServiceSettings) -> None:
        self._templates, self._settings = templates, settings

    async def rendered(self, record: Record, fields: Fields) -> Fields:
        """The fields as they are sent: with a template's content in them, and every text filled, unless `render` is
        false. Raises NotFound for a template that this account does not have, ApiError 422 for one that can not be
        rendered."""
        fields = await self.with_template(record["account"], fields)
        asked = fields.get("render")
        if asked is None or asked is False:
            return _without(fields, "render")
        context = await self.context(record, asked.get("params"))
        kit = Kit(fields)
        return await asyncio.to_thread(kit.filled, context, Budget())

    async def with_template(self, account: str, fields: Fields) -> Fields:
        """The fields with the content of their template, whose format counts more than the one given."""
        if not fields.get("template"):
            return _without(fields, "template")
        found = await self._templates.for_mail(fields["template"], account)
        filled = _without(fields, "template") | {part: text for part, text in found["content"].items() if text}
        if fields.get("render") is not False:
            filled["render"] = (fields.get("render") or {}) | {"format": found["format"]}
        return filled

    async def context(self, record: Record, params: Mapping[str, Any] | None, **more: Any) -> Fields:
        """What a template can name."""
        auth = auth_of(record)
        address = record.get("email") or auth.get("delegatedUser") or auth.get("user")
        account = {"name": record.get("name") or "", "email": address or ""}
        service = {"url": await self._settings.service_url()}
        return {"params": dict(params or {}), "account": account, "service": service, **more}


class Kit:
    """The texts of one request, read once and filled as often as there are recipients."""

    def __init__(self, fields: Fields) -> None:
        self._fields = _without(fields, "render")
        self._format = (fields.get("render") or {}).get("format") or "html"
        self._programs: dict[str, Program] = {}
        self._problem: ApiError | None = None
        self._reading, self._is_read = Lock(), False

    def filled(self, context: Mapping[str, Any], budget: Budget) -> Fields:
        """The fields with their texts filled; takes its time. ApiError 422."""
        texts = {part: self._part(part, program, context, budget) for part, program in self._read().items()}
        return self._fields | texts

    def _read(self) -> dict[str, Program]:
        """The texts, ready to be filled: read by the first thread that asks. ApiError 422, to each that asks."""
        with self._reading:
            if not self._is_read:
                self._is_read = True
                try:
                    self._programs = {part: self._compiled(part) for part in PARTS if self._fields.get(part)}
                except ApiError as problem:
                    self._problem = problem
        if self._problem is not None:
            raise self._problem
        return self._programs

    def _compiled(self, part: str) -> Program:
        try:
            return compiled(self._fields[part])
        except (TemplateProblem, RecursionError) as problem:
            raise _failed(part, problem) from None

    def _part(self, part: str, program: Program, context: Mapping[str, Any], budget: Budget) -> str:
        try:
            # The preview text is escaped when it is put into the HTML.
            text = render(program, context, escape=part == "html", budget=budget)
            if part == "html" and self._format == "markdown":
                text = html_of_markdown(text, budget)
        except (TemplateProblem, RecursionError) as problem:
            raise _failed(part, problem) from None
        if part == "subject":
            text = " ".join(text.splitlines())
        if len(text) > LONGEST.get(part, len(text)):
            raise _failed(part, TemplateProblem("The rendered text is too long"))
        return text.strip()


def html_of_markdown(text: str, budget: Budget) -> str:
    """HTML from Markdown: CommonMark with tables and strike-through. HTML in it stays, since values were escaped
    before; links that run scripts become text. TemplateProblem for what is too long.

    The time it takes may grow with the square of the marks in the text, so these are limited, and paid for.
    """
    marks = sum(map(text.count, _MARKS))
    if len(text) > LONGEST_MARKDOWN or marks > MOST_MARKS:
        raise TemplateProblem(f"Markdown can have at most {LONGEST_MARKDOWN} characters, {MOST_MARKS} of them marks")
    budget.step(marks * marks // 1000)
    from markdown_it import MarkdownIt

    converter = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    converted: str = converter.render(text)
    return converted


def _failed(part: str, problem: Exception) -> ApiError:
    response = str(problem) if isinstance(problem, TemplateProblem) else "The template is nested too deep"
    return ApiError(422, f"Failed rendering {part} template", info={"response": response})


def _without(fields: Fields, name: str) -> Fields:
    return {key: value for key, value in fields.items() if key != name}
