"""What is wrong with a template."""

from __future__ import annotations


class TemplateProblem(Exception):
    """A template that can not be read or filled. The text is for its author; it holds nothing of the values."""
