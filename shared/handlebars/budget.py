"""How much work templates may cause."""

from __future__ import annotations

from shared.handlebars.errors import TemplateProblem

MOST_STEPS = 200_000  # expressions, blocks and turns of loops; about half a second
MOST_CHARACTERS = 5_242_880  # of one rendered text: what the contract takes in a field


class Budget:
    """Steps and characters that are left, for one template or for many that are rendered for one call."""

    def __init__(self, steps: int = MOST_STEPS, characters: int = MOST_CHARACTERS) -> None:
        self.steps, self.characters = steps, characters

    def share(self) -> Budget:
        """A budget for one of many: as large as one may have, and no larger than what is left of this."""
        return Budget(min(self.steps, MOST_STEPS), min(self.characters, MOST_CHARACTERS))

    def spend(self, given: Budget, left: Budget) -> None:
        """Takes off what was used of a share: `given` as it was before, `left` as it is now."""
        self.steps -= given.steps - max(left.steps, 0)
        self.characters -= given.characters - max(left.characters, 0)

    def step(self, number: int = 1) -> None:
        """Uses up steps; TemplateProblem when there are no more."""
        self.steps -= number
        if self.steps < 0:
            raise TemplateProblem("The template takes too many steps")

    def write(self, length: int) -> None:
        """Uses up characters; TemplateProblem when there are no more."""
        self.characters -= length
        if self.characters < 0:
            raise TemplateProblem("The rendered text is too long")
