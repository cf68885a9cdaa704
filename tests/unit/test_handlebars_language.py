"""Handlebars templates: what each construct of the language writes."""

import json
from typing import Any

import pytest

from shared.handlebars import TemplateProblem, compiled, render

CONTEXT: dict[str, Any] = {
    "params": {
        "name": "Ann & <Bob>",
        "zero": 0,
        "no": False,
        "nothing": None,
        "empty": [],
        "items": [{"n": "a", "sub": [1, 2]}, {"n": "b", "sub": []}],
        "words": ["x", "y", "y"],
        "map": {"one": 1, "10": "ten", "2": "two"},
        "odd name": {"a/b": "odd"},
        "key": "one",
        "float": 2.50,
        "whole": 3.0,
    },
    "account": {"name": "Support"},
}


def shown(template: str, context: Any = None, **options: Any) -> str:
    """What a template writes."""
    return render(compiled(template), CONTEXT if context is None else context, **options)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{params.name}}", "Ann &amp; &lt;Bob&gt;"),
        ("{{{params.name}}}|{{&params.name}}|{{{ params.name }}}", "Ann & <Bob>|Ann & <Bob>|Ann & <Bob>"),
        ("{{ params.zero }},{{params.no}},{{params.nothing}},{{params.none}}", "0,false,,"),
        ("{{params.float}} {{params.whole}} {{params.words}} {{params.map}}", "2.5 3 x,y,y [object Object]"),
        ("{{params.words.length}}{{params.words.1}}{{params.words.[0]}}{{params.words.7}}", "3yx"),
        ("{{params.[odd name].[a/b]}} {{params/name.length}}", "odd 11"),
        ("{{this.account.name}}{{./account.name}}{{account.name.x.y.z}}", "SupportSupport"),
        ("{{lookup params.map params.key}}{{lookup params.words 1}}{{lookup params.nothing 'x'}}", "1y"),
        ("{{lookup (lookup params 'map') (lookup params \"key\")}}", "1"),
        ("{{log params.name}}", ""),
        ("{{12}}{{true}}{{'params'}}", "[object Object]"),
        ("\\{{raw}} \\\\{{params.zero}} \\{{a}}{{params.zero}}", "{{raw}} \\0 {{a}}0"),
        ("a { b } }} {c", "a { b } }} {c"),
        ("{{! no }}{{!-- {{no}} --}}{{!--}}{{~! x ~}} y", "y"),
        ("{{params.toString}}{{params.constructor}}{{params.__proto__}}{{params.words.pop}}{{constructor.name}}", ""),
    ],
)
def test_values(template: str, text: str) -> None:
    """Paths, literals, escaping, comments; what is not in the values is nothing."""
    assert shown(template) == text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{#if params.name}}a{{else}}b{{/if}}", "a"),
        ("{{#if params.zero}}a{{else}}b{{/if}}{{#if params.zero includeZero=true}}a{{else}}b{{/if}}", "ba"),
        ("{{#if params.empty}}a{{^}}b{{/if}}{{#unless params.no}}c{{else}}d{{/unless}}", "bc"),
        ("{{#if params.no}}a{{else if params.zero}}b{{else if params.key}}c{{else}}d{{/if}}", "c"),
        ("{{^if params.no}}a{{/if}}{{^params.items}}b{{else}}c{{/params.items}}", "acc"),
        ("{{#with params}}{{key}}{{../account.name}}{{/with}}{{#with params.no}}a{{else}}b{{/with}}", "oneSupportb"),
        ("{{#with params.key as |k|}}{{k}}{{this}}{{/with}}", "oneone"),
        ("{{#each params.items}}{{@index}}{{@key}}{{n}}{{#if @first}}F{{/if}}{{#if @last}}L{{/if}};{{/each}}",
         "00aF;11bL;"),
        ("{{#each params.map}}{{@key}}={{this}} {{/each}}", "2=two 10=ten one=1 "),
        ("{{#each params.items}}{{#each sub}}{{@../index}}{{@index}}{{../n}}{{@root.account.name}} {{/each}}{{/each}}",
         "00aSupport 01aSupport "),
        ("{{#each params.items as |it at|}}{{at}}{{it.n}}{{#each it.sub as |s|}}{{it.n}}{{s}}{{/each}}{{/each}}",
         "0aa1a21b"),
        ("{{#each params.empty}}x{{else}}none{{/each}}{{#each params.key}}x{{else}}none{{/each}}", "nonenone"),
        ("{{#params.items}}{{n}}{{/params.items}}{{#params.map}}{{one}}{{/params.map}}", "ab1"),
        ("{{#params.no}}a{{/params.no}}{{#params.zero}}[{{this}}]{{/params.zero}}", "[0]"),
        ("{{#each params.words}}{{#if this}}{{../params.key}}{{/if}}{{/each}}", "oneoneone"),
        ("{{#with params as |if|}}{{if.key}}{{/with}}", "one"),
    ],
)  # fmt: skip
def test_blocks(template: str, text: str) -> None:
    """Conditions, loops, contexts, names, and what `../` and `@` lead to in them."""
    assert shown(template) == text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a\n{{#if params.key}}\n  b\n{{/if}}\nc\n", "a\n  b\nc\n"),
        ("{{#if params.no}}\na\n{{else}}\nb\n{{/if}}\n", "b\n"),
        ("  {{#if params.no}}\na\n  {{else if params.key}}  \nb\n  {{else}}\nc\n  {{/if}}\nd", "b\nd"),
        ("a\n  {{! gone }}  \nb\n{{!-- gone --}}\r\nc", "a\nb\nc"),
        ("a {{#if params.key}} b {{/if}} c", "a  b  c"),
        ("a\n {{params.key}}\n b", "a\n one\n b"),
        ("a  {{~params.key~}}  b", "aoneb"),
        ("a \n {{~#if params.key~}} \n b \n {{~else~}} c {{~/if~}} \n d", "abd"),
        ("{{#each params.words}}\n- {{this}}\n{{/each}}\n", "- x\n- y\n- y\n"),
        ("{{#if params.key}}a\n{{/if}}\nb", "a\nb"),
        ("a\n{{#if params.key}}{{params.key}}{{/if}}\nb", "a\none\nb"),
    ],
)
def test_white_space(template: str, text: str) -> None:
    """Lines that hold only a block's tag or a comment vanish; `~` removes what it touches."""
    assert shown(template) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{", "{{}}", "{{a", "{{a b", "{{{a}}", "{{a}}}", "{{#if a}}", "{{/if}}", "{{else}}",
        "{{#if a}}{{/unless}}",
        "{{#if a}}{{else}}{{else}}{{/if}}", "{{> part}}", "{{#> part}}{{/part}}", "{{* a}}",
        "{{#*inline 'a'}}{{/inline}}",
        "{{{{raw}}}}a{{{{/raw}}}}", "{{a 'b}}", "{{a.[b}}", "{{!-- a", "{{! a", "{{a/../b}}", "{{a b=}}", "{{a b=1 c}}",
        "{{(a)}}", "{{lookup (a b}}", "{{#each a as |}}{{/each}}",
        "{{#each a as |b}}{{/each}}", "{{a as |b|}}", "{{a;b}}",
        "{{unknown params}}", "{{#unknown params}}{{/unknown}}", "{{lookup (unknown) 'a'}}", "{{params.name 1}}",
        "{{#if}}{{/if}}", "{{#if a b}}{{/if}}", "{{#with}}{{/with}}", "{{#each}}{{/each}}", "{{if a}}", "{{lookup a}}",
        "{{a=b}}", "{{@}}", "{{[]", "{{\"", "{{~", "{{#", "{{^", "{{/", "{{!", "{{&",
    ],
)  # fmt: skip
def test_what_is_no_template_is_refused(template: str) -> None:
    """A problem with a text for the author, and nothing else."""
    with pytest.raises(TemplateProblem):
        shown(template)


def test_without_escaping_values_stand_as_they_are() -> None:
    """Subjects and plain text are not HTML."""
    assert shown("{{params.name}}", escape=False) == "Ann & <Bob>"


def test_escaping_is_that_of_handlebars() -> None:
    """All seven characters, in its spelling."""
    assert shown("{{x}}", {"x": "& < > \" ' ` ="}) == "&amp; &lt; &gt; &quot; &#x27; &#x60; &#x3D;"


@pytest.mark.parametrize(
    ("number", "text"),
    [("1e21", "1e+21"), ("1e-7", "1e-7"), ("0.000001", "0.000001"),
     ("123456789012345680000.0", "123456789012345680000"),
     ("-0.0", "0"), ("1.5e300", "1.5e+300"), ("9007199254740993", "9007199254740993"), ("NaN", "NaN"),
     ("-Infinity", "-Infinity"), ("0.1", "0.1")],
)  # fmt: skip
def test_numbers_are_written_as_javascript_does(number: str, text: str) -> None:
    """No `.0`, an exponent only where JavaScript has one."""
    assert shown("{{x}}", {"x": json.loads(number)}) == text


def test_an_own_value_called_like_a_helper_is_reached_by_its_path() -> None:
    """`{{this.log}}` is a value where `{{log}}` is the helper."""
    assert shown("{{this.log}}{{./each}}{{x.with}}", {"log": "a", "each": "b", "x": {"with": "c"}}) == "abc"
