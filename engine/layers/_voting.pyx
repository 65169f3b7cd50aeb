# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# distutils: extra_compile_args = -O3 -ffp-contract=off
"""The loop of `voting.find_leaders`, see there; `voting._find_leaders_numpy` computes the same bits."""

import numpy as np

from libc.stdint cimport int64_t


def find_leaders(
    const double[:, ::1] corners,
    const double[::1] areas,
    const int64_t[::1] order,
    const int64_t[::1] first,
    const int64_t[::1] stop,
    double iou_thresh,
):
    """Leader (P,) int64 of each box and the IoU (P,) float64 with it.

    Args:
        corners: (P, 4), sorted by class, then by x1.
        areas: (P,).
        order: (P,) positions in `corners`, best first.
        first, stop: (P,) the positions from `first` up to `stop` hold every box that can follow the box at a position.
    """
    cdef Py_ssize_t count = corners.shape[0]
    leaders_array = np.full(count, -1, dtype=np.int64)
    ious_array = np.ones(count, dtype=np.float64)
    cdef int64_t[::1] leaders = leaders_array
    cdef double[::1] ious = ious_array
    cdef Py_ssize_t rank, best, other
    cdef double x1, y1, x2, y2, area, left, top, right, bottom, inter, union_, iou
    with nogil:
        for rank in range(count):
            best = order[rank]
            if leaders[best] >= 0:
                continue
            leaders[best] = best
            x1 = corners[best, 0]
            y1 = corners[best, 1]
            x2 = corners[best, 2]
            y2 = corners[best, 3]
            area = areas[best]
            for other in range(first[best], stop[best]):
                if leaders[other] >= 0:
                    continue
                left = corners[other, 0] if corners[other, 0] > x1 else x1
                right = corners[other, 2] if corners[other, 2] < x2 else x2
                top = corners[other, 1] if corners[other, 1] > y1 else y1
                bottom = corners[other, 3] if corners[other, 3] < y2 else y2
                if right > left and bottom > top:
                    inter = (right - left) * (bottom - top)
                    union_ = areas[other] + area - inter
                    iou = inter / union_
                else:
                    iou = 0.0
                if iou >= iou_thresh:
                    leaders[other] = best
                    ious[other] = iou
    return leaders_array, ious_array
