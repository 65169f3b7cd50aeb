from __future__ import annotations

import itertools

import numpy as np

from engine.visualize.colors import (
    NUM_COLORS,
    class_color,
    relative_luminance,
    text_color,
)


def test_the_classes_of_coco_differ_visibly() -> None:
    colors = np.array([class_color(label) for label in range(80)])
    distances = [np.abs(a - b).max() for a, b in itertools.combinations(colors, 2)]
    assert min(distances) >= 20
    first = [np.abs(a - b).max() for a, b in itertools.combinations(colors[:12], 2)]
    assert min(first) >= 50


def test_colors_are_stable_and_come_again() -> None:
    assert class_color(1) == (64, 169, 255)
    assert class_color(NUM_COLORS + 1) == class_color(1)
    assert len({class_color(label) for label in range(NUM_COLORS)}) == NUM_COLORS
    assert all(type(value) is int for value in class_color(40))


def test_text_stands_out_from_every_color() -> None:
    for label in range(NUM_COLORS):
        pair = sorted(map(relative_luminance, (class_color(label), text_color(class_color(label)))))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5
