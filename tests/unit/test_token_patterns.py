"""Patterns of referrers, compared with what their definition says."""

import re

from hypothesis import given
from hypothesis import strategies as st

from shared.tokens import _fits

LETTERS = st.text(alphabet="ab*", max_size=8)


@given(pattern=LETTERS, text=st.text(alphabet="ab", max_size=10))
def test_a_pattern_fits_what_its_stars_can_stand_for(pattern: str, text: str) -> None:
    """As a regular expression would say that may take its time."""
    expression = ".*".join(re.escape(piece) for piece in pattern.split("*"))
    assert _fits(pattern, text) == (re.fullmatch(expression, text) is not None)
