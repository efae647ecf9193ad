"""The parts of a scene that are fixed and large: the ground, buildings, plants, fences and the distant backdrop."""

import math

import numpy as np

from segsemi.datasets.scenes.canvas import BACKDROP_DEPTH, FAR, NEAR, Id, Point, Region, Street, Thing, Wall, ellipse
from segsemi.datasets.scenes.looks import BUILDING_PALETTE, LEAF_PALETTE, Facade, jitter, pick, rgb


def draw_backdrop(street: Street) -> None:
    """Paint distant houses and trees on the horizon."""
    rng = street.rng
    for _ in range(rng.integers(6, 16)):
        x, half, height = rng.uniform(-110, 110), rng.uniform(4, 16), rng.uniform(3, 22)
        if rng.random() < 0.5:
            wall = street.wall((x - half, BACKDROP_DEPTH), (x + half, BACKDROP_DEPTH), -1, height)
            if wall is not None:
                region, _, up, _ = wall
                colour = pick(rng, BUILDING_PALETTE) * (0.8 + 0.2 * (up % 3 < 1.5))[..., None]
                street.paint(region, colour, Id.BUILDING, BACKDROP_DEPTH)
        else:
            draw_crown(street, x, BACKDROP_DEPTH, (-2, height * 0.6), half, leaf_colour(street))
    top = rng.uniform(0.5, 4)  # of a band that closes the gap between the ground and the sky
    band = street.polygon(street.upright(0, BACKDROP_DEPTH, [(-400, -1), (400, -1), (400, top), (-400, top)]))
    colour = leaf_colour(street) * (0.6 + 0.6 * street.patch(band))[..., None]
    street.paint(band, colour, Id.VEGETATION, BACKDROP_DEPTH)


def draw_ground(street: Street) -> None:
    """Paint road, pavement and grass, from the world position of each pixel."""
    rng, town, height, width = street.rng, street.town, street.height, street.width
    x, z = street.ground()
    outside = np.maximum(x - street.right, street.left - x)
    road = (outside < 0) | ((z > street.crossing[0]) & (z < street.crossing[1]))
    grass = ~road & ((outside < town.verge) | ((outside > street.walk) & town.garden))
    grain = street.fine[:height, width : 2 * width] - 0.5
    stain = street.coarse[height : 2 * height, width : 2 * width] - 0.5
    colours = road_colours(street, x, z)
    joints = ((x % town.tile < 0.06) | (z % town.tile < 0.08)) & (z < 14)
    kerb = 0.12 * (outside < 0.2)[..., None]  # is light
    pavement = jitter(rng, town.pavement) - 0.12 * joints[..., None] + kerb
    colours[~road] = pavement[~road]
    colours[grass] = (jitter(rng, town.lawn) * (1 + 1.1 * grain[..., None]))[grass]
    colours *= 1 + (rng.uniform(0.1, 0.3) * grain + rng.uniform(0.05, 0.2) * stain)[..., None]
    snow = street.weather.snow * np.clip(1.3 * (~road) + 0.9 * stain + 0.3 * rng.random(), 0, 1)[..., None]
    colours += (np.array([0.90, 0.92, 0.95]) - colours) * snow
    below = Region((slice(0, height), slice(0, width)), z < BACKDROP_DEPTH)
    street.paint(below, colours, np.select([road, grass], [Id.ROAD, Id.VEGETATION], Id.PAVEMENT), z)


def road_colours(street: Street, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the colours of the road with its markings, (H, W, 3) float32."""
    rng, left, right = street.rng, street.left, street.right
    colours = np.full((*x.shape, 3), jitter(rng, street.town.road), np.float32)
    if street.town.cobbles:
        colours *= 1 - 0.25 * (((x % 0.35 < 0.07) | (z % 0.5 < 0.1)) & (z < 18))[..., None]
    if rng.random() < 0.2:  # a cycle lane, coloured but still road
        colours[(x > right - 1.6) & (x < right - 0.2)] = pick(rng, rgb("803d33 406b4c 475c80"))
    for _ in range(rng.integers(0, 4)):  # repairs
        x0, z0 = rng.uniform(left, right), rng.uniform(3, 25)
        repair = (abs(x - x0) < rng.uniform(0.4, 2)) & (abs(z - z0) < rng.uniform(0.5, 4))
        colours[repair] *= rng.uniform(0.65, 1.3)
    paint = (0.88, 0.87, 0.84) if rng.random() < 0.8 else (0.85, 0.68, 0.20)
    dash, phase = rng.uniform(4, 9), rng.uniform(0, 9)
    marks = np.zeros(x.shape, bool)
    if rng.random() < 0.75:  # the middle line, dashed or not
        marks |= (abs(x - (left + right) / 2) < 0.1) & (((z + phase) % dash < dash * 0.45) | (rng.random() < 0.2))
    if rng.random() < 0.5:
        inset = rng.uniform(0.2, 2.3)
        marks |= (abs(x - right + inset) < 0.08) | (abs(x - left - inset) < 0.08)
    if rng.random() < 0.3:  # a zebra crossing
        start = rng.uniform(5, 22)
        marks |= (z > start) & (z < start + 3) & (x % 1.0 < 0.5) & (x > left) & (x < right)
    colours[marks] += (np.array(paint) - colours[marks]) * rng.uniform(0.4, 1.0)  # worn or fresh
    return colours


def paint_facade(street: Street, wall: Wall, look: Facade, height: float, light: float) -> None:
    """Paint a wall with brick courses, framed windows (some lit when it is dark) and perhaps a shop front."""
    rng, (region, along, up, depth) = street.rng, wall
    colour = np.full((*region.mask.shape, 3), look.colour, np.float32)
    colour *= (1 - look.courses * ((up % 0.4 < 0.12) | (up % 0.4 + along % 0.8 < 0.3)))[..., None]
    bay, storey = (along / look.bay).astype(int), np.maximum(up / look.storey, 0).astype(int)
    across, rise = along / look.bay - bay, up / look.storey - storey
    left, right, low, high = look.window
    inset = np.minimum(np.minimum(across - left, right - across), np.minimum(rise - low, high - rise))
    inset[up >= height - 0.6] = -1
    window = inset > 0
    colour[inset > -0.05] = look.trim
    each = rng.random((40, 80)).astype(np.float32)[storey % 40, bay]  # one number for each window
    colour[window] = (look.glass * (0.6 + 0.8 * each[..., None]))[window]
    glow = np.zeros_like(colour)
    glow[window & (each > 1 - 0.45 * street.weather.dark)] = np.array([0.75, 0.60, 0.32]) * rng.uniform(0.5, 1.0)
    if look.shop:
        front = up < look.storey
        colour[front] = look.trim * 0.8
        pane = front & (up > 0.5) & (up < look.storey * 0.72) & (across > 0.08) & (across < 0.94)
        colour[pane] = look.glass * 0.7
        glow[front] = 0
        glow[pane] = np.array([0.8, 0.72, 0.55]) * (0.7 * street.weather.dark)
    colour *= light * (0.8 + 0.25 * street.patch(region, coarse=True) + 0.15 * street.patch(region))[..., None]
    street.paint(region, colour, Id.BUILDING, depth, glow)


def place_buildings(street: Street, side: float) -> None:
    """Add a row of buildings on one side (-1 left, 1 right), broken by side streets and gardens."""
    rng = street.rng
    z, tall, setback = NEAR, rng.uniform(5, 18), rng.uniform(0.2, 6) * (rng.random() < 0.6)
    while z < FAR:
        length = rng.uniform(6, 20)
        if rng.random() < 0.22 or (street.crossing[0] < z + length and z < street.crossing[1]):
            z += 4 + rng.uniform(0, 8)
            continue
        x = side * (abs(street.kerb(side)) + street.walk + setback + rng.uniform(0, 1.5))
        height = max(3.5, tall * rng.uniform(0.55, 1.5))
        street.add(building(street, side, x, z, length, height))
        z += length + (rng.uniform(1, 6) if rng.random() < 0.3 else 0)


def building(street: Street, side: float, x: float, z: float, length: float, height: float) -> Thing:
    """Put one building: the gable end, the front, and the roof of a low one."""
    rng = street.rng
    street.cast([(x, z), (x, z + length), (x + 8 * side, z)], height)
    look = street.town.facades[rng.integers(len(street.town.facades))]
    roof = rng.uniform(1.5, 4) if height < 12 and rng.random() < 0.6 else 0.0
    tiles = pick(rng, rgb("733829 474547 5c4c42"))
    tiles = tiles + (0.9 - tiles) * street.weather.snow
    yield x, z + length / 2

    end, back, inner, top = x + 14 * side, z + length, x + 4 * side, height + roof
    if roof:
        gable = [[x, height, z], [(x + end) / 2, top, z], [end, height, z]]
        slope = [[x, height, z], [inner, top, z], [inner, top, back], [x, height, back]]
        for corners, shade in ((gable, 0.9), (slope, 1.0)):
            region = street.polygon(street.project(np.array(corners)))
            street.paint(region, tiles * shade * (0.8 + 0.4 * street.patch(region))[..., None], Id.BUILDING, z)
    lights = 1 - 0.3 * street.weather.shadow, street.side_light(side)
    for corner, light in zip(((end, z), (x, back)), lights, strict=True):  # the gable end, then the front
        wall = street.wall((x, z), corner, 0, height)
        if wall is not None:
            paint_facade(street, wall, look, height, light)


def leaf_colour(street: Street) -> np.ndarray:
    """Return a plant's colour (3,), near that of most plants in this town."""
    own = pick(street.rng, LEAF_PALETTE, 0.03)
    return street.town.leaf + (own - street.town.leaf) * 0.5 * street.rng.random()


def draw_crown(
    street: Street, x: float, z: float, span: Point, half: float, tint: np.ndarray, cone: bool = False, holes: float = 0
) -> None:
    """Paint leaves between two heights: a ragged blob, round or a cone."""
    corners = street.upright(x, z, [(-half, span[0]), (half, span[1])])
    box = street.box(corners, 0.25 * half * street.focal / z)
    rows, columns = np.ogrid[box.box]
    across = abs(columns - corners[:, 0].mean()) / max(half * street.focal / z, 0.5)
    rise = (corners[0, 1] - rows) / max(corners[0, 1] - corners[1, 1], 1.0)
    coarse, fine = street.patch(box, coarse=True), street.patch(box)
    inside = np.where(rise > 0, 1 - rise - across, -1.0) if cone else 1 - np.sqrt(across**2 + (2 * rise - 1) ** 2)
    mask = (inside + 0.7 * (coarse - 0.5) + 0.35 * (fine - 0.5) > 0) & (fine > holes)
    lit = 0.55 + 0.45 * rise + 0.9 * (fine - 0.5) + 0.7 * (coarse - 0.5)
    leaves = tint * np.clip(lit, 0.15, 1.8)[..., None]
    snow = np.clip(street.weather.snow * (fine + rise - 0.7), 0, 1)[..., None]
    street.paint(box._replace(mask=mask), leaves + (0.92 - leaves) * snow, Id.VEGETATION, z)


def draw_branches(street: Street, x: float, z: float, height: float, bark: np.ndarray) -> None:
    """Paint a tree without leaves: lines that fork."""
    tips = [(0.0, height * 0.3, math.pi / 2, height * 0.25)]
    for level in range(5):
        grown = []
        for across, up, angle, length in tips:
            for turn in (-1, 1):
                bent = angle + turn * street.rng.uniform(0.15, 0.6)
                tip = (across + length * math.cos(bent), up + length * math.sin(bent))
                street.put(x, z, [(across, up), tip], bark, Id.VEGETATION, line=0.16 / (level + 1))
                grown.append((*tip, bent, length * 0.75))
        tips = grown


def tree(street: Street, x: float, z: float) -> Thing:
    """Put a tree with a round or conical crown, or bare."""
    rng = street.rng
    height, kind, bare = rng.uniform(4, 12), rng.random(), rng.random() < (0.9 if street.weather.snow else 0)
    colour, bark = leaf_colour(street), np.array([0.26, 0.20, 0.15]) * rng.uniform(0.6, 1.7)
    half = height * (rng.uniform(0.12, 0.2) if kind < 0.25 else rng.uniform(0.25, 0.45))
    for _ in range(4):  # dappled shade
        lean = height * rng.uniform(0.4, 1.0)
        spot = ellipse((x + street.sun[0] * lean, z + street.sun[1] * lean), half * 0.6, half * 0.5)
        street.cast(spot, 0.0, 0.85)
    street.cast([(x - 0.15, z), (x + 0.15, z)], height * 0.5)
    yield x, z

    trunk = 0.02 * height
    stem = [(-trunk, 0), (trunk, 0), (trunk * 0.7, height * 0.4), (-trunk * 0.7, height * 0.4)]
    street.put(x, z, stem, bark, Id.VEGETATION)
    if bare:
        draw_branches(street, x, z, height, bark)
    else:
        cone = 0.25 <= kind < 0.4
        low = height * (0.1 if cone else rng.uniform(0.2, 0.38))
        draw_crown(street, x, z, (low, height), half, colour, cone, rng.uniform(0.1, 0.36))


def bush(street: Street, x: float, z: float) -> Thing:
    """Put a bush on the ground."""
    height, half = street.rng.uniform(0.6, 2.2), street.rng.uniform(0.6, 2.0)
    colour = leaf_colour(street)
    street.cast([(x - half, z), (x + half, z)], height)
    yield x, z
    draw_crown(street, x, z, (-0.3, height), half, colour)


def fence(street: Street, side: float, x: float, z: float, length: float) -> Thing:
    """Put planks, railings, mesh or a crash barrier; the whole panel is labelled, as annotators do."""
    rng = street.rng
    height, kind = street.town.fence_height * rng.uniform(0.9, 1.1), street.town.fence_kind
    base = jitter(rng, street.town.fence)
    pitch, post = rng.uniform(0.15, 0.4), rng.uniform(1.5, 3.0)
    street.cast([(x, z), (x, z + length)], height, 0.8)
    yield x, z + length * 0.5

    wall = street.wall((x, z), (x, z + length), 0, height)
    if wall is None:
        return
    region, along, up, depth = wall
    rails = (abs(up - height * 0.95) < 0.06) | (abs(up - height * 0.15) < 0.05) | (along % post < 0.12)
    solid = tone = np.ones_like(along)
    if kind == 0:  # planks
        tone = 0.75 + 0.3 * (along % pitch > 0.04)
    elif kind == 1:  # railings; far bars merge into a veil
        solid = np.maximum(rails, np.where(depth > 12, 0.45, along % pitch < 0.06))
    elif kind == 2:  # mesh
        threads = ((along + up) % pitch < 0.05) | ((along - up) % pitch < 0.05)
        solid = np.maximum(rails, np.where(depth > 8, 0.4, 0.75 * threads))
    else:  # crash barrier: a beam on posts
        beam = (up > height * 0.5) & (up < height * 0.9)
        solid = np.maximum(0.3, beam | (along % post < 0.15))
        tone = 0.75 + 0.35 * np.sin(up / height * 18)
    shade = tone * street.side_light(side) * (0.8 + 0.4 * street.patch(region))
    behind = street.image[region.box]
    colour = behind + (base * shade[..., None] - behind) * solid[..., None].astype(np.float32)
    street.paint(region, colour, Id.FENCE, depth)
