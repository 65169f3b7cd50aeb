# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# distutils: extra_compile_args = -O3 -ffp-contract=off
"""The loop of `voting.find_leaders`; `voting._find_leaders_numpy` computes the same bits."""

import numpy as np

from libc.stdint cimport int64_t


cdef inline Py_ssize_t first_above(const double[::1] values, Py_ssize_t begin, Py_ssize_t end, double limit) noexcept nogil:
    """The first position in [begin, end) of the sorted `values` that is above `limit`, or `end`."""
    cdef Py_ssize_t middle
    while begin < end:
        middle = (begin + end) // 2
        if values[middle] > limit:
            end = middle
        else:
            begin = middle + 1
    return begin


def find_leaders(
    const double[:, ::1] corners,
    const double[::1] areas,
    const int64_t[::1] order,
    const int64_t[::1] class_bounds,
    const double[:, ::1] low,
    const double[:, ::1] high,
    double iou_thresh,
):
    """Leader (P,) int64 of each box and the IoU (P,) float64 with it.

    Args:
        corners: (P, 4), sorted by class, then by x1.
        areas: (P,).
        order: (P,) positions in `corners`, best first.
        class_bounds: (K + 1,) where each of the K classes begins, and P.
        low, high: (P, 2); the (x1, y1) of a box led by the one of that row are above `low` and at most `high`.
    """
    cdef Py_ssize_t count = corners.shape[0]
    leaders_array = np.full(count, -1, dtype=np.int64)
    ious_array = np.ones(count, dtype=np.float64)
    cdef int64_t[::1] leaders = leaders_array
    cdef double[::1] ious = ious_array
    cdef const double[::1] lefts = np.ascontiguousarray(corners[:, 0])
    cdef const double[::1] tops = np.ascontiguousarray(corners[:, 1])
    cdef const int64_t[::1] class_of = np.repeat(np.arange(class_bounds.shape[0] - 1), np.diff(class_bounds))
    cdef int64_t[::1] near = np.empty(count + 1, dtype=np.int64)
    cdef Py_ssize_t rank, best, begin, end, other, num_near, k
    cdef double x1, y1, x2, y2, area, lowest, highest, left, top, right, bottom, inter, iou
    with nogil:
        for rank in range(count):
            best = order[rank]
            if leaders[best] >= 0:
                continue
            leaders[best] = best
            begin, end = class_bounds[class_of[best]], class_bounds[class_of[best] + 1]
            begin = first_above(lefts, begin, end, low[best, 0])
            end = first_above(lefts, begin, end, high[best, 0])
            lowest, highest = low[best, 1], high[best, 1]
            num_near = 0
            for other in range(begin, end):  # without branches, which could not be foreseen
                near[num_near] = other
                num_near += (tops[other] > lowest) & (tops[other] <= highest) & (leaders[other] < 0)
            x1, y1, x2, y2 = corners[best, 0], corners[best, 1], corners[best, 2], corners[best, 3]
            area = areas[best]
            for k in range(num_near):
                other = near[k]
                left = corners[other, 0] if corners[other, 0] > x1 else x1
                right = corners[other, 2] if corners[other, 2] < x2 else x2
                top = corners[other, 1] if corners[other, 1] > y1 else y1
                bottom = corners[other, 3] if corners[other, 3] < y2 else y2
                if right > left and bottom > top:
                    inter = (right - left) * (bottom - top)
                    iou = inter / (areas[other] + area - inter)
                else:
                    iou = 0.0
                if iou >= iou_thresh:
                    leaders[other] = best
                    ious[other] = iou
    return leaders_array, ious_array
