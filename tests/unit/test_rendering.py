"""The texts of a mail: Markdown, lengths, what is read once for many recipients."""

import pytest

from shared.errors import ApiError
from shared.handlebars import Budget, TemplateProblem
from shared.rendering import MOST_MARKS, Kit, html_of_markdown


def test_markdown_is_commonmark_with_tables_and_the_authors_html() -> None:
    """Headings, lists, tables and strike-through; HTML of the template stays."""
    html = html_of_markdown("# Hi\n\n- a\n\n|a|b|\n|-|-|\n|1|~~2~~|\n\n<b>own</b>", Budget())
    for part in ("<h1>Hi</h1>", "<li>a</li>", "<td>1</td>", "<s>2</s>", "<b>own</b>"):
        assert part in html


@pytest.mark.parametrize("link", ["javascript:alert(1)", "JaVaScript:x", "vbscript:x", "data:text/html,x"])
def test_links_that_run_scripts_are_no_links(link: str) -> None:
    """Whether they stand in the text or come as a value."""
    assert "href" not in html_of_markdown(f"[x]({link})", Budget())


def test_values_bring_no_html_of_their_own_into_markdown() -> None:
    """Tags of a value are text; in three braces they are HTML, as the author wants."""
    kit = Kit({"html": "{{x}} {{{x}}}", "render": {"format": "markdown"}})
    assert kit.filled({"x": "<i>1</i>"}, Budget())["html"] == "<p>&lt;i&gt;1&lt;/i&gt; <i>1</i></p>"


def test_markdown_that_would_take_long_is_refused() -> None:
    """By length, by the number of marks, and by what is left of the budget."""
    for text, budget in (
        ("a" * 500_001, Budget()), ("[" * (MOST_MARKS + 1), Budget()), ("[" * 4000, Budget(steps=1000)),
    ):  # fmt: skip
        with pytest.raises(TemplateProblem):
            html_of_markdown(text, budget)


def test_a_rendered_text_keeps_the_limits_of_its_field() -> None:
    """A subject over what the contract takes is a failure that names the subject."""
    with pytest.raises(ApiError) as caught:
        Kit({"subject": "{{x}}"}).filled({"x": "a" * 10_241}, Budget())
    assert (caught.value.status, caught.value.message) == (422, "Failed rendering subject template")


def test_a_kit_is_filled_again_and_again() -> None:
    """Each time with other values; what can not be read is said each time."""
    kit = Kit({"text": " {{a}} ", "to": ["kept"], "render": {"params": {}}})
    assert [kit.filled({"a": n}, Budget()) for n in (1, 2)] == [{"text": str(n), "to": ["kept"]} for n in (1, 2)]
    broken = Kit({"text": "{{#if}}"})
    for _ in range(2):
        with pytest.raises(ApiError, match="text template"):
            broken.filled({}, Budget())


def test_shares_of_a_budget_add_up() -> None:
    """One of many takes no more than its share, and what all took is gone."""
    whole = Budget(500_000, 100)
    share, given = whole.share(), whole.share()
    assert share.steps == 200_000
    with pytest.raises(TemplateProblem):
        share.step(200_001)
    whole.spend(given, share)
    assert whole.steps == 300_000
