"""A distillation loss as it is written on the command line: names joined by +, each with a weight."""

from collections.abc import Sequence
from dataclasses import dataclass

from skystill.errors import SettingsError


@dataclass(frozen=True)
class Term:
    """One part of a distillation loss.

    Args:
        name: of a loss on logits or on features.
        weight: more than 0.
    """

    name: str
    weight: float


def parse_terms(text: str, known: Sequence[str]) -> list[Term]:
    """Read "kl", "kl+0.5*dist", "kl + 3*pkd".

    Args:
        text: names joined by +, each with a weight before it where that is not 1.
        known: the names there are.

    Raises:
        SettingsError: no such loss, one twice, or a weight that is no positive number.
    """
    terms: list[Term] = []
    for part in text.split("+"):
        weight, _, name = part.strip().rpartition("*")
        if name not in known:
            raise SettingsError(
                f"no distillation loss is called {name!r}; there are {', '.join(known)}, and sums such as kl+0.5*dist."
            )
        if name in (term.name for term in terms):
            raise SettingsError(f"distillation loss {text!r} names {name} twice; give it one weight.")
        try:
            factor = float(weight or 1)
        except ValueError:
            factor = 0.0
        if not 0 < factor < float("inf"):
            raise SettingsError(f"distillation loss {part.strip()!r}: its weight must be a positive number.")
        terms.append(Term(name, factor))
    return terms
