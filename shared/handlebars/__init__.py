"""Handlebars templates, as EmailEngine's clients write them, rendered without evaluating anything.

`compiled` reads a template, `render` fills it. What a template does is limited by a `Budget`, so that no template
keeps a process busy. Partials, decorators and raw blocks are refused; helpers are those built into Handlebars.
"""

from shared.handlebars.budget import Budget
from shared.handlebars.errors import TemplateProblem
from shared.handlebars.nodes import Program
from shared.handlebars.parser import compiled
from shared.handlebars.renderer import render

__all__ = ["Budget", "Program", "TemplateProblem", "compiled", "render"]
