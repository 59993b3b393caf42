"""Reading of a distillation loss as it is written on the command line: names joined by +, each with a weight."""

from collections.abc import Sequence
from dataclasses import dataclass

from skystill.errors import SettingsError


@dataclass(frozen=True)
class Term:
    """One summand of a distillation loss.

    Args:
        name: name of a loss on logits or on features.
        weight: factor of this loss in the sum, more than 0.
    """

    name: str
    weight: float


def parse_terms(text: str, known: Sequence[str]) -> list[Term]:
    """Parse the text of a distillation loss, such as "kl", "kl+0.5*dist" or "kl + 3*pkd".

    Args:
        text: names joined by +. A weight other than 1 stands before its name, with a * between them.
        known: all names that are allowed.

    Returns:
        The terms in the order of the text.

    Raises:
        SettingsError: a name is not known or appears twice, or a weight is not a positive, finite number.
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
