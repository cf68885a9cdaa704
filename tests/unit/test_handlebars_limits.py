"""No template keeps a process busy, fills its memory, or ends in anything but text or a problem."""

import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.handlebars import Budget, TemplateProblem, compiled, render
from shared.handlebars.parser import MOST_NESTED


def shown(template: str, context: Any, **budget: int) -> str:
    """What a template writes within a budget."""
    return render(compiled(template), context, budget=Budget(**budget))


def nested(depth: int) -> str:
    """A template of blocks in blocks."""
    return "{{#if x}}" * depth + "deep" + "{{/if}}" * depth


def test_loops_in_loops_end() -> None:
    """What would take a thousand million turns is given up."""
    template = "{{#each x}}{{#each ../x}}{{#each ../../x}}{{/each}}{{/each}}{{/each}}"
    with pytest.raises(TemplateProblem, match="too many steps"):
        shown(template, {"x": [0] * 1000})


def test_a_text_that_grows_ends() -> None:
    """A thousand times a long value is given up before it is put together."""
    with pytest.raises(TemplateProblem, match="too long"):
        shown("{{#each x}}{{../y}}{{/each}}", {"x": [0] * 1000, "y": "a" * 100_000})


def test_a_list_of_lists_is_written_or_given_up() -> None:
    """Lists that are written out cost their length; those too deep are a problem."""
    deep: Any = "x"
    for _ in range(60):
        deep = [deep]
    with pytest.raises(TemplateProblem, match="nested"):
        shown("{{x}}", {"x": deep})
    with pytest.raises(TemplateProblem, match="too many steps"):
        shown("{{x}}", {"x": [0] * 100}, steps=50)


def test_the_budget_may_be_shared() -> None:
    """What one template used up another does not have."""
    budget, template = Budget(steps=10), compiled("{{#each x}}{{/each}}")
    render(template, {"x": [1, 2, 3]}, budget=budget)
    with pytest.raises(TemplateProblem):
        render(template, {"x": [1, 2, 3, 4, 5]}, budget=budget)


def test_blocks_nest_as_deep_as_is_allowed_and_no_deeper() -> None:
    """The deepest template renders, also with little of Python's stack left; one more level is refused."""
    assert shown(nested(MOST_NESTED), {"x": 1}) == "deep"
    for template in (nested(MOST_NESTED + 1), nested(100_000)):
        with pytest.raises(TemplateProblem):
            compiled(template)
    with pytest.raises(TemplateProblem):
        compiled("{{lookup " + "(" * 100_000)
    with pytest.raises(TemplateProblem):
        compiled("{{#if a}}" + "{{else if b}}" * 1000 + "{{/if}}")


def test_a_stack_that_ends_is_a_problem_of_the_template() -> None:
    """RecursionError never comes out."""
    template = compiled(nested(MOST_NESTED))
    frame, used = sys._getframe(), 0
    while frame is not None:
        frame, used = frame.f_back, used + 1  # type: ignore[assignment]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(used + 100)
    try:
        with pytest.raises(TemplateProblem, match="too deep"):
            render(template, {"x": 1})
    finally:
        sys.setrecursionlimit(limit)


def test_too_many_expressions_are_refused() -> None:
    """Reading a template is limited as well."""
    with pytest.raises(TemplateProblem, match="at most"):
        compiled("{{a}}" * 30_000)


@pytest.mark.parametrize(
    "template",
    ["{" * 400_000, "{{!--" * 60_000, "{{a " * 60_000, "{{'" * 100_000, "\\{{" * 100_000, "{{[" * 100_000,
     "{{a" + " " * 400_000,
     "{{a as" + " " * 400_000, "{{" + "a." * 200_000, "{{!-- --" * 60_000, " \n" * 200_000 + "{{#a}}" + " \n" * 200_000,
     "{{'" + "\\'" * 200_000],
)  # fmt: skip
def test_long_templates_are_read_in_one_pass(template: str) -> None:
    """What is badly formed and long is refused or read; a quadratic reader would not come back within the day."""
    with suppress(TemplateProblem):
        compiled(template)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "__proto__"]), inner),
    max_leaves=4,
)
PIECES = st.sampled_from(
    [
        *"{{ }} {{{ }}} {{# {{/ {{^ {{! {{!-- --}} ~ a b . .. / @ ( ) = ' \" [ ] | as if each with lookup else".split(),
        *"this \\ 1 @index x {{else}} {{/if}} {{/each}} {{a}}".split(), " ", "\n", "{{#if a}}", "{{#each a}}",
    ]
)


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(PIECES, max_size=14), context=st.dictionaries(st.sampled_from(["a", "b"]), JSON))
def test_anything_is_text_or_a_problem(pieces: list[str], context: Any) -> None:
    """No template and no values raise anything but TemplateProblem."""
    try:
        text = render(compiled("".join(pieces)), context)
    except TemplateProblem:
        return
    assert isinstance(text, str)


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_characters="{}\\"), max_size=50), value=st.text(max_size=20))
def test_text_without_braces_is_written_as_it_is(text: str, value: str) -> None:
    """Text is kept byte for byte, and a value in it is escaped."""
    assert render(compiled(text), {}) == text
    escaped = render(compiled(f"{text}{{{{x}}}}{text}"), {"x": value})
    assert escaped.startswith(text)
    assert escaped.endswith(text)
    assert "<" not in escaped[len(text) : len(escaped) - len(text)]
