"""Colours of classes whose file gives none."""

import colorsys
from functools import cache
from itertools import count

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
_MOST = 255  # classes
_GOLDEN = (5**0.5 - 1) / 2

# Colour-blind people can tell them apart (Okabe, Ito 2008). With more classes than
# colours, the list is repeated in three darker shades, and then come other hues (`_default_colors`).
_PALETTE: tuple[Color, ...] = (
    (213, 94, 0), (240, 228, 66), (0, 114, 178), (0, 158, 115), (86, 180, 233), (230, 159, 0), (204, 121, 167),
)  # fmt: skip


def default_color(index: int) -> Color:
    """Return the colour of class `index` in a classes file without colours."""
    return _default_colors()[index]


@cache
def _default_colors() -> tuple[Color, ...]:
    """255 colours that all differ: shades of the palette, then hues that lie far from the ones before."""
    found = dict.fromkeys(
        (int(red * shade), int(green * shade), int(blue * shade))
        for shade in (0.7**step for step in range(4))
        for red, green, blue in _PALETTE
    )
    steps = count()
    while len(found) < _MOST:
        step = next(steps)
        hue, saturation, value = step * _GOLDEN % 1, (0.85, 0.5)[step % 2], (0.95, 0.7, 0.45)[step % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        found[round(255 * red), round(255 * green), round(255 * blue)] = None
    return tuple(found)
