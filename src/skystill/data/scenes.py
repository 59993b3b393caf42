"""Procedural aerial scenes with exact labels, for the demo and the tests.

They need no download and no licence, and any number of them can be made. A scene is painted in layers: bare land,
vegetation, water, roads, shadows, buildings, trees. The light comes from the north-west, so shadows fall to the
south-east.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image, ImageDraw, ImageFilter

from skystill.classes import ClassMap, Labels
from skystill.raster.saving import save_picture
from skystill.run_folder import write_text

SCENE_CLASSES = ClassMap(
    names=("Building", "Land", "Road", "Vegetation", "Water"),
    colors=((60, 16, 152), (132, 41, 246), (110, 193, 228), (254, 221, 58), (226, 169, 41)),
    source="procedural scenes",
)
_BUILDING, _LAND, _ROAD, _VEGETATION, _WATER = range(5)

Floats = npt.NDArray[np.float32]
_SHADOW = np.array([5, 7], np.float32)  # length of a shadow in pixels per storey, to the east and to the south
_ROOFS = ((176, 92, 70), (150, 78, 62), (196, 190, 182), (168, 166, 168), (206, 178, 140), (120, 122, 130))


@dataclass(frozen=True)
class Season:
    """How scenes look at a time of the year. What is where does not depend on it.

    Args:
        grass, crowns: colours of vegetation and of trees, RGB from 0 to 255.
        light: factors of red, green and blue.
        shadows: length of the shadows, in those of summer.
    """

    grass: tuple[int, int, int]
    crowns: tuple[int, int, int]
    light: tuple[float, float, float]
    shadows: float


SUMMER = Season(grass=(92, 112, 62), crowns=(58, 84, 44), light=(1.0, 1.0, 1.0), shadows=1.0)
AUTUMN = Season(grass=(132, 120, 66), crowns=(104, 84, 42), light=(0.86, 0.93, 1.02), shadows=1.5)


def paint_scene(size: int, seed: int, season: Season = SUMMER) -> tuple[npt.NDArray[np.uint8], Labels]:
    """Paint one scene.

    Args:
        size: side in pixels.
        seed: the same seed gives the same scene.
        season: how it looks.

    Returns:
        image (size, size, 3) uint8 RGB, 0 to 255, and labels (size, size) uint8, indices of `SCENE_CLASSES`.
    """
    return _Painter(size, np.random.default_rng(seed), season).paint()


def write_scene(folder: Path, index: int, size: int, seed: int, labelled: bool = True, season: Season = SUMMER) -> None:
    """Paint one scene and write it into a data set: images/scene_000.jpg and masks/scene_000.png.

    Args:
        folder: the data folder.
        index: number of the scene in the data set; 0 gives the names above.
        size: side in pixels.
        seed: seed of the data set. The same seed and index give the same scene.
        labelled: whether the mask is written.
        season: how the scene looks.
    """
    image, labels = paint_scene(size, seed * 100_003 + index, season)
    pictures = {"images": image} | ({"masks": SCENE_CLASSES.paint(labels)} if labelled else {})
    for kind, picture in pictures.items():
        suffix = "jpg" if kind == "images" else "png"
        save_picture(Image.fromarray(picture), folder / kind / f"{scene_key(index)}.{suffix}", quality=92)


def scene_key(index: int) -> str:
    """Return the key of a scene in its data set."""
    return f"scene_{index:03d}"


def write_scene_classes(folder: Path) -> None:
    """Write the classes of the scenes to `classes.yaml` in the data folder."""
    write_text(folder / "classes.yaml", yaml.safe_dump(SCENE_CLASSES.to_dict(), sort_keys=False))


def smooth_noise(rng: np.random.Generator, size: int, cell: int, octaves: int = 4) -> Floats:
    """Return a sum of smoothly interpolated random grids, with mean 0 and standard deviation 1.

    Args:
        rng: random generator from which the grids are drawn.
        size: side in pixels.
        cell: distance in pixels between grid points of the coarsest layer. Each further layer has half the distance
            and half the weight.
        octaves: number of layers.

    Returns:
        (size, size) float32.
    """
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        points = max(2, size * 2**octave // cell + 1)
        grid = Image.fromarray(rng.standard_normal((points, points)).astype(np.float32))
        total += np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC)) / 2**octave
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), np.float32)


class _Painter:
    """Paints the layers of one scene. Later layers cover earlier ones.

    `color` is (H, W, 3) float32 RGB, 0 to 255. `labels` is (H, W) uint8.
    """

    def __init__(self, size: int, rng: np.random.Generator, season: Season) -> None:
        self.size = size
        self.rng = rng
        self.season = season
        self.color = np.zeros((size, size, 3), np.float32)
        self.labels = np.full((size, size), _LAND, np.uint8)
        self.angle = float(rng.uniform(0, np.pi / 2))  # of the street grid, in radians

    def paint(self) -> tuple[npt.NDArray[np.uint8], Labels]:
        self._land()
        self._vegetation()
        self._water()
        streets = self._roads()
        self._buildings(streets)
        self._trees()
        return self._finish(), self.labels

    def _noise(self, cell: int, octaves: int = 4) -> Floats:
        return smooth_noise(self.rng, self.size, cell, octaves)

    def _lay(self, where: npt.NDArray[np.bool_], color: Floats, label: int) -> None:
        self.color[where] = color[where]
        self.labels[where] = label

    def _tint(self, base: tuple[int, int, int], *layers: tuple[Floats, float]) -> Floats:
        shade = np.zeros(layers[0][0].shape, np.float32)
        for noise, weight in layers:
            shade += noise * weight
        return np.array(base, np.float32) + shade[..., None] * np.array([1.0, 0.95, 0.85], np.float32)

    def _land(self) -> None:
        dry = self._noise(160)[..., None] * np.array([7, 8, 9], np.float32)
        self.color[:] = self._tint((186, 164, 130), (self._noise(90), 9), (self._noise(6, 2), 6)) + dry

    def _vegetation(self) -> None:
        field = self._noise(170, 5)
        where = field > self.rng.uniform(0.45, 0.95)
        color = self._tint(self.season.grass, (self._noise(40), 10), (self._noise(5, 2), 14))
        self._lay(where, color, _VEGETATION)

    def _water(self) -> None:
        if self.rng.random() < 0.25:
            return
        rows, columns = np.mgrid[: self.size, : self.size].astype(np.float32)
        if self.rng.random() < 0.6:  # a river, across the scene
            tilt = self.rng.uniform(0, np.pi)
            along = columns * np.cos(tilt) + rows * np.sin(tilt)
            across = rows * np.cos(tilt) - columns * np.sin(tilt)
            bend = self.size * 0.07 * np.sin(along / self.size * self.rng.uniform(4, 9) + self.rng.uniform(0, 6))
            middle = across[self.size // 2, self.size // 2] + self.rng.uniform(-0.25, 0.25) * self.size
            distance = np.abs(across - middle - bend) - self.size * self.rng.uniform(0.025, 0.06)
        else:  # a lake
            center = self.rng.uniform(0.15, 0.85, 2) * self.size
            radius = self.size * self.rng.uniform(0.1, 0.2)
            distance = np.hypot(rows - center[0], columns - center[1]) - radius
        distance = distance + self._noise(60) * self.size * 0.012
        bank = np.clip(1 - np.abs(distance) / 9, 0, 1)[..., None]
        self.color += bank * np.array([14, 12, 6], np.float32)
        deep = np.clip(-distance / 40, 0, 1)
        color = self._tint((66, 104, 112), (self._noise(120), 4), (self._noise(4, 1), 3)) - deep[..., None] * 22
        self._lay(distance < 0, color, _WATER)

    def _roads(self) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
        """Paint a grid of streets.

        Returns:
            for each street, points along its centre line, (P, 2) as x and y, and its direction (2,).
        """
        streets: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = []
        mask, line = self._sheet(), self._sheet()
        for turn in (0.0, np.pi / 2):
            direction = np.array([np.cos(self.angle + turn), np.sin(self.angle + turn)])
            normal = np.array([-direction[1], direction[0]])
            offset = -0.75 * self.size + self.rng.uniform(0, 100)
            while offset < 0.75 * self.size:
                middle = np.array([self.size / 2, self.size / 2]) + normal * offset
                ends = [middle - direction * self.size, middle + direction * self.size]
                if self.rng.random() < 0.8:
                    width = int(self.rng.integers(11, 21))
                    self._line(mask, ends, width)
                    if width > 15:
                        self._line(line, ends, 1)
                    along = np.arange(-0.7 * self.size, 0.7 * self.size, 8)[:, None]
                    streets.append((middle + along * direction, direction))
                offset += self.rng.uniform(120, 210)
        asphalt = self._tint((112, 112, 114), (self._noise(60), 5), (self._noise(4, 1), 4))
        self._lay(np.asarray(mask) > 127, asphalt, _ROAD)
        paint = np.asarray(line, np.float32)[..., None] / 255 * 0.6
        self.color += (np.array([226, 222, 206], np.float32) - self.color) * paint
        return streets

    def _buildings(self, streets: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]) -> None:
        """Paint houses along the streets, each with its shadow. None stands on a road, in water or on another house."""
        taken = (self.labels == _ROAD) | (self.labels == _WATER)
        houses: list[tuple[npt.NDArray[np.float64], float, int]] = []
        for points, direction in streets:
            normal = np.array([-direction[1], direction[0]])
            for point in points[self.rng.random(len(points)) < 0.4]:
                depth, length = self.rng.uniform(20, 44), self.rng.uniform(24, 62)
                side = self.rng.choice([-1.0, 1.0])
                center = point + normal * side * (16 + depth / 2 + self.rng.uniform(0, 10))
                corners = _rectangle(center, direction, length, depth)
                footprint = self._fill(_rectangle(center, direction, length + 8, depth + 8))
                if footprint.any() and not (footprint & taken).any():
                    taken |= footprint
                    houses.append((corners, float(self.rng.integers(1, 4)), int(self.rng.integers(len(_ROOFS)))))
        shadow = _SHADOW * np.float32(self.season.shadows)
        for corners, storeys, _ in houses:
            self._shade(self._fill(corners + shadow * storeys) | self._fill(corners + shadow * storeys / 2))
        for corners, _, roof in houses:
            self._roof(corners, _ROOFS[roof])

    def _roof(self, corners: npt.NDArray[np.float64], base: tuple[int, int, int]) -> None:
        noise = self.rng.standard_normal((self.size, self.size)).astype(np.float32)
        whole = self._fill(corners)
        part = _window(whole)
        color = self._tint(base, (noise[part], 4)) + self.rng.uniform(-14, 14)
        self.color[part][whole[part]] = color[whole[part]]
        self.labels[whole] = _BUILDING
        ridge = (corners[[0, 1]] + corners[[3, 2]]) / 2  # along the length; one half of the roof is darker
        dark = self._fill(np.array([ridge[0], ridge[1], corners[2], corners[3]])) & whole
        self.color[dark] *= 0.84

    def _trees(self) -> None:
        """Paint single trees, more of them on vegetation than on bare land."""
        green = np.argwhere(self.labels == _VEGETATION)
        bare = np.argwhere(self.labels == _LAND)
        spots = [
            group[self.rng.integers(len(group), size=count)] for group, count in ((green, 90), (bare, 26)) if len(group)
        ]
        for row, column in np.concatenate(spots) if spots else ():
            radius = float(self.rng.uniform(4, 9))
            part = np.s_[max(0, row - 10) : row + 16, max(0, column - 10) : column + 15]  # what tree and shade cover
            labels, color = self.labels[part], self.color[part]
            crown, shade = (
                disc[part] for disc in (self._disc(column, row, radius), self._disc(column + 4, row + 5, radius))
            )
            free = (labels == _LAND) | (labels == _VEGETATION)
            _darken(color, shade & free)
            crown = crown & free
            labels[crown] = _VEGETATION
            tone = np.array(self.season.crowns, np.float32) + self.rng.uniform(-12, 16)
            color[crown] = tone + self.rng.standard_normal((int(crown.sum()), 1)) * 9

    def _shade(self, where: npt.NDArray[np.bool_]) -> None:
        part = _window(where)
        _darken(self.color[part], where[part])

    def _finish(self) -> npt.NDArray[np.uint8]:
        light = self.rng.uniform(0.88, 1.1) + self._noise(400, 1) * 0.02
        color = self.color * light[..., None] * np.array(self.season.light, np.float32)
        picture = Image.fromarray(np.clip(color, 0, 255).astype(np.uint8))
        soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.7)), np.float32)
        grain = self.rng.standard_normal((self.size, self.size, 1)).astype(np.float32) * 3
        return np.asarray(np.clip(soft + grain, 0, 255), np.uint8)

    def _sheet(self) -> Image.Image:
        return Image.new("L", (self.size, self.size), 0)

    def _line(self, sheet: Image.Image, ends: list[npt.NDArray[np.float64]], width: int) -> None:
        ImageDraw.Draw(sheet).line([tuple(end) for end in ends], fill=255, width=width)

    def _fill(self, corners: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        sheet = self._sheet()
        ImageDraw.Draw(sheet).polygon([tuple(corner) for corner in corners], fill=255)
        return np.asarray(sheet) > 0

    def _disc(self, x: float, y: float, radius: float) -> npt.NDArray[np.bool_]:
        sheet = self._sheet()
        ImageDraw.Draw(sheet).ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
        return np.asarray(sheet) > 0


def _darken(color: Floats, where: npt.NDArray[np.bool_]) -> None:
    color[where] = np.minimum(color[where], color[where] * 0.56 + np.array([2, 5, 12], np.float32))


def _window(where: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns of (H, W) that hold everything that is True. Work on these is a tenth of the work."""
    rows, columns = (np.flatnonzero(where.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.s_[:0, :0]
    return np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _rectangle(
    center: npt.NDArray[np.float64], direction: npt.NDArray[np.float64], length: float, depth: float
) -> npt.NDArray[np.float64]:
    """Return the corners, (4, 2) as x and y, of a rectangle whose length runs along `direction`."""
    along, across = direction * length / 2, np.array([-direction[1], direction[0]]) * depth / 2
    return np.array(
        [center - along - across, center + along - across, center + along + across, center - along + across]
    )
