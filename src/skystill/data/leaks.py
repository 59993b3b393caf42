"""Images that show what another part of a split shows, and folders of parts that a split does not keep to."""

from collections.abc import Sequence

from skystill.data.check import DataCheck
from skystill.data.image_files import same_bytes
from skystill.data.pairs import Pair
from skystill.data.places import sharing_ground
from skystill.data.split import AUTO_RULE, Split
from skystill.errors import first_few

_MEND = "scores there are too good. Put what shows the same place into one part, with --split FILE or folders"


def leak_notes(check: DataCheck, split: Split) -> list[str]:
    """Return notes on test and validation images that are copies of images of other parts, or show their ground.

    Windows of a map are kept apart by their split (`skystill.data.blocks`).

    Args:
        check: the content of the data.
        split: its images by part.
    """
    if check.maps:
        return []
    notes = [*_folder_note(check, split)]
    for part, seen in (("test", (*split.train, *split.validation)), ("validation", split.train)):
        pairs = getattr(split, part)
        copied = copies_of(pairs, seen)
        shared = _shared(check, [pair for pair in pairs if pair.key not in copied], seen)
        for what, found in (("are copies of", copied), ("show ground, or have the mask, of", shared)):
            if found:
                named = first_few([f"{one} and {other}" for one, other in found.items()], 3)
                notes.append(
                    f"{len(found)} of {len(pairs)} {part} images {what} images of other parts "
                    f"({', '.join(named)}): {_MEND}."
                )
    return notes


def copies_of(pairs: Sequence[Pair], seen: Sequence[Pair]) -> dict[str, str]:
    """Return the pairs whose image file has the same bytes as one of others, each with that."""
    keys, other = {pair.image: pair.key for pair in pairs}, {pair.image: pair.key for pair in seen}
    found: dict[str, str] = {}
    for group in same_bytes([*keys, *other]):
        first = next((other[path] for path in group if path in other), None)
        found |= {keys[path]: first for path in group if path in keys and first is not None}
    return found


def _shared(check: DataCheck, pairs: Sequence[Pair], seen: Sequence[Pair]) -> dict[str, str]:
    """Return the pairs that show ground of one of others, or have its mask, each with that."""
    records, of_mask = check.by_key, {pair.mask.resolve(): pair.key for pair in seen}
    found = sharing_ground(*([records[pair.key].place for pair in some] for some in (pairs, seen)))
    other = [of_mask.get(pair.mask.resolve(), None if at is None else seen[at].key)
             for pair, at in zip(pairs, found, strict=True)]  # fmt: skip
    return {pair.key: one for pair, one in zip(pairs, other, strict=True) if one is not None}


def _folder_note(check: DataCheck, split: Split) -> list[str]:
    """Return a note if folders say the part of images, and the split does not keep to them."""
    named = {record.pair.subset for record in check.records} - {""}
    if not named or not split.rule.startswith(AUTO_RULE):
        return []
    return [
        f"folders of the data are called {' and '.join(sorted(named))}, and images were spread over the parts "
        "without regard to them: --split auto keeps to folders if all images are in some, and there are train and "
        "test. Complete them, or name the images of each part in a --split FILE."
    ]
