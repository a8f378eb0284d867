"""Small procedural landscapes: forests, fields and lakes in four seasons at four times of day.

Everything is integer arithmetic, so that a seed gives the same bytes on every machine.
Arrays have the axes B (images), 3 (channels), H (rows), W (columns); an axis may be 1 long.
Colours are int16, 0..255.  Weights are 0..128 (128 = all), so that colour * weight fits int16.
Heights and widths called "fine" are int32 in 1/256 pixel.
"""

import numpy as np

from .checks import check_agreement, check_range, whole_number

VERSION = 1  # of the pictures: files of older ones are not read
SIDE = 64  # pictures are always drawn at 64 x 64; smaller ones are averaged from these
BATCH = 32  # one int16 channel of a batch is 256 KiB, which stays in the processor's cache
ONE = 128  # the full weight
ROWS = np.arange(SIDE, dtype=np.int32)[:, None]
COLUMNS = np.arange(SIDE, dtype=np.int32)
STEP = np.array([t * t * (3 * ONE - 2 * t) >> 14 for t in range(ONE)])  # a soft step, 0..128
# Hills from far to near: weight of the haze, drop of the skyline below the one before (from, below),
# height of its bumps (from, below), length of its bumps, width of its trees, all in pixels
HILLS = ((66, (1, 4), (3, 12), 20, 2), (36, (3, 8), (2, 10), 30, 4), (8, (7, 22), (2, 12), 40, 9))
# Half widths of a conifer, a round and a slender tree from foot to top, 256 = the widest
SHAPES = np.int32(
    [
        [24, 240, 256, 200, 225, 160, 190, 130, 150, 100, 115, 70, 80, 40, 40, 12],
        [28, 24, 24, 40, 140, 210, 245, 256, 256, 250, 236, 214, 182, 140, 90, 30],
        [30, 30, 60, 110, 140, 156, 160, 160, 156, 150, 140, 126, 110, 90, 64, 24],
    ]
)


def palette(text):
    """Return colours (rows, 2, columns, 3), 0..255, from rows of two moods in "RGB" hex digits."""
    digits = [int(digit, 16) * 17 for digit in "".join(text.split())]
    return np.array(digits, np.int16).reshape(4, 2, -1, 3)


# Each picture mixes the two moods of its row with a random weight.  For each time of day:
# zenith, horizon, glow of the sun, haze, light on the land, bright cloud, dark cloud
AIR = palette("""7AC FDB FEB DCD FED FED BAC   88C FCA FEC DBC EDC FDC A9B
                 48C CEE FFE ACE FFF FFF BCD   6AC DEE FFD BCD FFE FFF ABC
                 548 F95 FD7 A78 EAA F97 757   358 FB7 FE9 879 EBB FB8 668
                 013 247 8AD 246 67A 457 124   023 468 ABC 357 68A 578 124""")
# For each season: grass, dry grass, crop, soil, flower, conifer, leaf, other leaf
LAND = palette("""7A5 AC6 DC5 975 FEF 364 9B5 FAC   6A5 9B6 AB6 965 FD7 465 8B5 FCD
                  584 8A5 DB6 9A5 D54 243 474 583   584 9A5 CB6 784 EED 354 374 7A4
                  A95 C95 DB6 864 B53 354 D72 EA4   895 B95 B95 764 DA4 454 B42 D83
                  EFF CDF EEF CDE FFF 467 99A BBC   FFF DEF EEE DDE FFF 356 8AA CCD""")


def scramble(values):
    """Mix the bits of a uint32 array one to one (the "lowbias32" hash)."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x7FEB352D)
    values = (values ^ (values >> np.uint32(15))) * np.uint32(0x846CA68B)
    return values ^ (values >> np.uint32(16))


def mix(first, second, weight):
    """Return first at weight 0, second at weight 128, and blends between; values 0..255."""
    return first + ((second - first) * np.asarray(weight, np.int16) >> 7)


def clip(weight):
    """Limit weights to 0..128."""
    return np.clip(weight, 0, ONE)


class Scene:
    """A batch of pictures while they are painted, from the sky to the viewer."""

    def __init__(self, keys, labels):
        self.keys, self.calls = keys, 0
        roll, season, hour = self.roll, labels // 4, labels % 4
        air = mix(AIR[hour, 0], AIR[hour, 1], roll(0, ONE + 1))
        land = mix(LAND[season, 0], LAND[season, 1], roll(0, ONE + 1))
        self.air, self.land = (np.moveaxis(table, 1, 0)[..., None, None] for table in (air, land))
        self.hour, self.winter = hour[:, None, None], (season == 3)[:, None, None]
        self.horizon, self.sun_x = roll(20, 40), roll(2, 62)
        self.sun_y = self.horizon - roll(0, 14) - np.array([-2, 25, -3, 8], np.int32)[self.hour]
        self.side = np.clip(self.sun_x - COLUMNS, -16, 16)  # from where the light comes
        self.shadow = 24 + (self.air[0] * 3 >> 3)  # shadows have the colour of the zenith
        self.haze, self.mist, self.conifers = roll(80, 140), roll(0, 80), roll(0, 256)
        self.wood, self.fields, self.bare = roll(50, 200), roll(-ONE, 2 * ONE), roll(60, 220)
        self.road_x, self.feature, self.snow_row = roll(8, 56), roll(0, 256), roll(-22, -8)
        self.bends = self.noise(1, 14, 2, 1).swapaxes(1, 2).astype(np.int32)
        self.grain, self.broad = self.noise(3, 3, 2), self.noise(7, 18, 3)
        self.canvas = np.zeros((len(keys), 3, SIDE, SIDE), np.int16)

    def roll(self, low, high, shape=(1, 1)):
        """Return random int32 (B, *shape), low..high - 1, fixed by the keys and calls so far."""
        self.calls += 1
        cells = np.arange(int(np.prod(shape)), dtype=np.uint32) + np.uint32(self.calls << 16)
        bits = scramble(self.keys[:, None] + scramble(cells)) >> np.uint32(17)
        values = low + (bits.astype(np.int32) * (high - low) >> 15)
        return values.reshape(len(self.keys), *shape)

    def noise(self, cell_y, cell_x, octaves, height=SIDE):
        """Return smooth noise (B, height, W), int16, 0..255, with bumps of a size in pixels."""
        total = 0
        for octave in range(octaves):  # each octave has half the size and half the strength
            size_y, size_x = max(cell_y >> octave, 1), max(cell_x >> octave, 1)
            grid = self.roll(0, 256, (height // size_y + 2, SIDE // size_x + 2)).astype(np.int16)
            row, part = np.divmod(np.arange(height), size_y)
            grid = mix(grid[:, row], grid[:, row + 1], STEP[part * ONE // size_y, None])
            column, part = np.divmod(COLUMNS, size_x)
            grid = mix(grid[:, :, column], grid[:, :, column + 1], STEP[part * ONE // size_x])
            total = total + (grid >> octave + 1)
        return total

    def paint(self, colour, weight):
        """Lay a colour (B, 3, H, W) over the canvas by a weight (B, H, W)."""
        self.canvas += (colour - self.canvas) * weight[:, None].astype(np.int16) >> 7

    def shine(self, colour, haze):
        """Return a colour as seen in the light of the hour through haze of a weight."""
        lit = mix(0, colour, self.air[4] >> 1)
        return mix(lit, self.air[3], (haze * self.haze >> 7)[:, None])

    def sky(self):
        """Paint the gradient, the stars, the sun or moon with its glow, and the clouds."""
        air, night = self.air, self.hour == 3
        down = clip(ROWS * ROWS * ONE // (self.horizon * self.horizon))
        self.canvas[:] = mix(air[0], air[1], down[:, None])
        stars = self.roll(0, ONE * 60, (SIDE, SIDE))  # one pixel in 60 is a star
        self.paint(255, np.where(stars < ONE, stars, 0) * night * (ONE - down) >> 7)
        right, low, radius = COLUMNS - self.sun_x, ROWS - self.sun_y, self.roll(3, 5)
        square = right * right + low * low
        reach = np.array([300, 80, 260, 60], np.int32)[self.hour]
        self.paint(air[2], 110 * reach // (reach + square))
        lit = clip(low * low * 16 - right * 96 + np.where(night, self.roll(-160, 500), 9999))
        disc = clip(64 + (radius * radius - square) * 64 // radius)
        self.paint(mix(air[2], 255, 64), disc * lit >> 7)  # the unlit part makes a crescent
        puffs = mix(self.noise(10, 20, 4), self.noise(5, 40, 4), self.roll(0, ONE))
        clear = self.roll(60, 210).astype(np.int16)
        light = clip(64 + (puffs - np.roll(puffs, -2, 1)) * 3 + (clear - puffs >> 1))
        self.paint(mix(air[6], air[5], light[:, None]), clip((puffs - clear) * 5 >> 1) * 7 >> 3)

    def skyline(self, base, height, length, peaks):
        """Return a skyline (B, 1, W), fine, around a row; peaks 0..128 makes it pointed."""
        soft = self.noise(1, length, 4, 1)
        pointed = 255 - abs(2 * soft - 255)
        tilt = self.roll(-50, 51)  # up to 6 pixels at the edges
        return base * 256 - mix(soft, pointed, peaks) * height + tilt * (COLUMNS - 32)

    def cover(self, depth, haze):
        """Return the colours of the land, depth (B, H, W) pixels below a skyline."""
        grass, dry, crop, soil, flower = self.shine(self.land[:5], haze)
        away = 1000 // np.arange(8, 80, dtype=np.int32)[depth]  # perspective: 1 / depth
        across = ((COLUMNS - self.road_x) * away >> 3) + (self.broad >> 4)
        plot = (across + 64 >> 7) * 31 + (away + (across >> 3) >> 5) * 977
        plot = scramble(plot.astype(np.uint32) + self.keys[:, None, None]) >> np.uint32(28)
        fields = clip(self.fields) * ((plot < 8) & (haze < 90))  # 16 kinds, half of them meadow
        furrow = (abs((across * 8 & 255) - 128) - 64) * depth >> 6
        crop = mix(crop, soil, clip((plot & 3).astype(np.int32) * 36 + furrow)[:, None])
        colour = mix(mix(grass, dry, (self.broad >> 1)[:, None]), crop, fields[:, None])
        bloom = clip((self.grain - 144) * 2) * ((self.broad > self.bare) & (haze < 50))
        colour = mix(colour, flower, bloom[:, None])
        middle = self.road_x * 256 + (self.bends - 128) * depth
        road = clip((depth + 4) * 26 - abs(COLUMNS * 256 + 128 - middle) + 128 >> 1)
        road = road * ((self.feature > 160) & (haze < 50))
        return mix(colour, mix(soil, crop, 48), road[:, None])

    def ground(self, line, haze):
        """Paint the land below a skyline with light, mist, and snow on its heights."""
        below = ROWS * 256 - line
        depth = np.clip(below + 256 >> 8, 0, SIDE)
        snow = clip((self.horizon + self.snow_row - ROWS) * 24 + (self.grain - 128 >> 1))
        colour = mix(self.cover(depth, haze), mix(self.air[3], self.air[4], 90), snow[:, None])
        wide = np.pad(line, ((0, 0), (0, 0), (3, 3)), "edge")
        slope = np.clip((wide[:, :, 6:] - wide[:, :, :-6]) * self.side >> 8, -64, 40)
        light = 98 + (slope * clip(ONE - depth * 11) >> 7) + (self.broad - 128 >> 2)
        light = clip(light + ((self.grain - 128) * (12 + depth) >> 8))
        colour = mix(colour * self.shadow >> 7, colour, light[:, None])
        colour = mix(colour, self.air[3], clip(below * self.mist * haze >> 19)[:, None])
        self.paint(colour, clip(below + 128 >> 1))

    def trees(self, line, haze, cell, density):
        """Paint a row of trees below a skyline, at most one in each cell of a width in pixels."""
        x = COLUMNS + self.roll(0, cell, (1,))
        index = x // cell

        def each(low, high):
            """Roll a number for each tree; return it for the columns of its cell (B, 1, W)."""
            return np.take_along_axis(self.roll(low, high, (SIDE // cell + 2,)), index, 1)[:, None]

        tall, narrow = each(cell * 280, cell * 520), each(0, cell * 40)
        half = cell * 128 - narrow
        aside = (x % cell)[:, None] * 256 + 128 - cell * 128 - (each(-128, 129) * narrow >> 7)
        middle = np.clip(COLUMNS - (aside >> 8), 0, SIDE - 1)
        foot = np.take_along_axis(line, middle, 2) + each(0, cell * 128)
        grove = np.take_along_axis(self.noise(1, 20, 2, 1), middle, 2)
        there = each(0, ONE) < density + grove - 128
        leafy = each(0, 256) >= self.conifers
        kind = leafy * (1 + (each(0, 4) == 0))
        high = foot - ROWS * 256
        if cell > 6:  # the shadows of smaller ones would not show
            cast = half - abs(aside + (self.side * half >> 5)) - abs(high) * 3 >> 3
            self.paint(self.canvas * self.shadow >> 7, np.clip(cast, 0, 80) * there)
        up = high * ((1 << 24) // tall) >> 16  # 0 at the foot, 256 at the top
        reach = SHAPES[kind, np.clip(up >> 4, 0, 15)] * half >> 8
        reach = reach + ((self.grain - 128) * (half * leafy) >> 8) * (up > 64)
        weight = clip(reach - abs(aside) + 128 >> 1) * (there & (up >= 0) & (up < 256))
        light = clip(62 + aside * self.side * 3 // half + (up - 128 >> 2) + (self.grain - 128 >> 1))
        leaf = mix(self.land[6], self.land[7], each(0, ONE + 1)[:, None])
        leaf = np.where(leafy[:, None], leaf, self.land[5])
        dark = (leaf * self.shadow >> 7) * 5 >> 3
        winter = self.winter[:, None]
        bright = mix(leaf, np.where(winter, self.land[0], self.air[2]), 30 + 60 * winter)
        self.paint(mix(self.shine(dark, haze), self.shine(bright, haze), light[:, None]), weight)

    def lake(self, shore):
        """Mirror what stands above the shore row (B) in the rows below it."""
        below = ROWS - shore
        ripple = (self.noise(2, 12, 2) - 128) * np.maximum(below, 0) >> 9
        source = np.clip(2 * shore - ROWS + ripple, 0, SIDE - 1)
        mirror = np.take_along_axis(self.canvas, source[:, None], 2)
        tint = mix(self.air[1], self.air[0], clip(below * 10)[:, None])
        self.paint(mix(mirror, tint, 60), ONE * ((below >= 0) & (self.feature < 100)))


def render(keys, labels):
    """Paint pictures for uint32 keys (B,) and int32 labels (B,); return uint8 (B, H, W, 3)."""
    scene = Scene(keys, labels)
    scene.sky()
    base, peaks = scene.horizon, scene.roll(0, ONE)
    line = scene.skyline(base + 2, scene.roll(2, 22), 24, peaks)
    scene.ground(line, 92)
    for haze, drop, height, length, cell in HILLS:
        if haze < 10:
            scene.lake(base + scene.roll(3, 7))
        base = base + scene.roll(*drop)
        line = scene.skyline(base, scene.roll(*height), length, peaks * haze >> 7)
        scene.trees(line, haze + 8, cell, scene.wood)
        scene.ground(line, haze)
        scene.trees(line + cell * 64, haze, cell * 3 // 2, scene.wood - 40)
    scene.trees(np.maximum(line + 2048, 58 * 256), 0, 26, scene.roll(-70, 70))
    return scene.canvas.astype(np.uint8).transpose(0, 2, 3, 1)


def label_name(label):
    """Return the words for a label 0..15, such as "winter night"."""
    season = ("spring", "summer", "autumn", "winter")[label // 4]
    return season + (" dawn", " day", " dusk", " night")[label % 4]


def landscapes(count: int, seed: int = 0, size: int = 64, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of forests, fields and lakes.

    Args:
        count: their number.
        seed: from 0 to 2**32 - 1. Picture i of a seed is the same however many pictures are made.
        size: 64 or a divisor of it; smaller pictures are averages of the large ones.
        first: the number of the first picture; the last number is at most 2**32 - 1.

    Returns:
        Images (count, size, size, 3), uint8, and labels (count,), uint8, from 0 to 15, see `label_name`.
    """
    count, seed, size, first = map(whole_number, ("count", "seed", "size", "first"), (count, seed, size, first))
    check_range(0, 2**32 - 1, seed=seed, first=first)
    check_range(0, 2**32 - first, count=count)
    check_agreement(f"size must be {SIDE} or a divisor of it", size in range(1, SIDE + 1) and SIDE % size == 0, size)
    numbers = np.arange(first, first + count, dtype=np.uint32)
    keys = scramble(numbers ^ scramble(np.array([seed], np.uint32)))
    labels = (scramble(keys) >> np.uint32(28)).astype(np.uint8)
    images, block = np.empty((count, size, size, 3), np.uint8), SIDE // size
    for start in range(0, count, BATCH):
        part = slice(start, start + BATCH)
        blocks = render(keys[part], labels[part].astype(np.int32))
        blocks = blocks.reshape(-1, size, block, size, block, 3).astype(np.int32)
        images[part] = (blocks.sum((2, 4)) + block * block // 2) // (block * block)
    return images, labels
