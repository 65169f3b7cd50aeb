"""Formats of annotation files, one module each, which registers its reader in `FORMATS`.

`recognise` finds out the format of a file or folder and reads it; `find_sets` finds the data sets of a folder.
"""

from engine.data.annotations import FORMATS, WRITERS
from engine.data.formats import coco, competition, csv_table, labelme, txt, voc, yolo

__all__ = ["FORMATS", "WRITERS", "coco", "competition", "csv_table", "labelme", "txt", "voc", "yolo"]
