"""Flags and labels of a message, as a caller wants them changed and as Graph takes them (emailengine.md 12.1). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.messages import flags_of

Operations = Mapping[str, Sequence[str]]
_FLAGS = {"\\seen": "isRead", "\\flagged": "flag"}


@dataclass(frozen=True)
class Marks:
    """What is to change: `add`, `delete` and `set` of flags and of labels. Flags that Graph does not know have no
    effect."""

    flags: Operations = field(default_factory=dict)
    labels: Operations = field(default_factory=dict)

    @property
    def reads_labels(self) -> bool:
        """Whether the labels there are must be known first."""
        return "set" not in self.labels and bool(self.labels.get("add") or self.labels.get("delete"))

    def changes(self, labels: Sequence[str] = ()) -> dict[str, Any]:
        """The properties to send to Graph, `labels` being those there are; {} when nothing changes."""
        wanted = {name: on for flag, name in _FLAGS.items() if (on := self._wanted(flag)) is not None}
        changes: dict[str, Any] = {name: on for name, on in wanted.items() if name == "isRead"}
        if "flag" in wanted:
            changes["flag"] = {"flagStatus": "flagged" if wanted["flag"] else "notFlagged"}
        if "set" in self.labels:
            changes["categories"] = _unique(self.labels["set"])
        elif self.reads_labels:
            after = self._labels_after(labels)
            changes |= {"categories": after} if after != list(labels) else {}
        return changes

    def _wanted(self, flag: str) -> bool | None:
        """True to switch on, False to switch off, None to leave. `set` wins over the others."""
        given = {name: {one.strip().lower() for one in listed} for name, listed in self.flags.items()}
        if "set" in given:
            return flag in given["set"]
        if flag in given.get("delete", ()):
            return False
        return True if flag in given.get("add", ()) else None

    def _labels_after(self, labels: Sequence[str]) -> list[str]:
        gone = {one.casefold() for one in self.labels.get("delete", ())}
        return [one for one in _unique([*labels, *self.labels.get("add", ())]) if one.casefold() not in gone]

    def echo(self, message: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer's `flags` and `labels`: what was asked and, with the message as Graph has it now, the result."""
        if message is None:
            return {name: dict(one) for name, one in (("flags", self.flags), ("labels", self.labels)) if one}
        shown: dict[str, Any] = {"flags": {**self.flags, "result": flags_of(dict(message))}}
        if self.labels:
            shown["labels"] = {**self.labels, "result": list(message.get("categories") or ())}
        return shown


def _unique(labels: Iterable[str]) -> list[str]:
    """Without repeats. Outlook does not tell categories apart by upper and lower case."""
    kept: dict[str, str] = {}
    for label in labels:
        kept.setdefault(label.casefold(), label)
    return list(kept.values())
