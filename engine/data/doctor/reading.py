"""What the readers say of a data set, as findings: what keeps it from being read, and what is read otherwise.

The readers word it; here each of their lines gets a code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from engine.data.doctor.findings import MOST_EXAMPLES, Code, Example, Finding, declare

UNKNOWN_SET = declare(
    "DATASET_UNKNOWN",
    "error",
    "A data set is not declared, or its declaration is incomplete.",
    "Declare it in DATASETS.CATALOG; the message shows how.",
)
MISSING = declare(
    "DATASET_MISSING",
    "error",
    "The annotation file or the image folder of a data set is missing.",
    "Correct the path; relative ones are relative to DATASETS.ROOT.",
)
NO_SET = declare(
    "DATASET_NONE",
    "note",
    "The configuration names no data set to train on, or none to test on.",
    "Name them in DATASETS.TRAIN and DATASETS.TEST.",
)
UNREADABLE = declare(
    "ANN_UNREADABLE",
    "error",
    "An annotation file cannot be read: no JSON, no text, or without `images` or `categories`.",
    "The message says where; export the file again.",
)
MISSPELT = declare(
    "ANN_KEY_MISSPELT",
    "error",
    "A key of the annotation file is misspelt. A warning if it is not needed.",
    "Rename it as the message says.",
)
FAULTY = declare(
    "ANN_FAULTY",
    "error",
    "An annotation file has a fault that no other code names.",
    "The message says what to do.",
)
ID_REPEATED = declare(
    "ID_REPEATED",
    "error",
    "Two images, annotations or categories have the same id.",
    "Give each its own id. `--fix` renumbers annotations.",
)
ID_UNKNOWN = declare(
    "ID_UNKNOWN",
    "error",
    "An annotation names an image or a category that the file does not list.",
    "Add it or correct the id; `--fix` removes such annotations.",
)
ID_INVALID = declare(
    "ID_INVALID",
    "error",
    "An id is neither an integer nor text.",
    "Write an integer.",
)
BOX_INVALID = declare(
    "BOX_INVALID",
    "error",
    "A `bbox` is not four finite numbers.",
    "Correct it; `--fix` removes such annotations.",
)
VALUE_INVALID = declare(
    "VALUE_INVALID",
    "error",
    "A size, a file name, an area or a flag of the annotation file has no usable value.",
    "Correct it as the message says.",
)
CLASS_INVALID = declare(
    "CLASS_INVALID",
    "error",
    "`categories` is empty, or a category has no usable name.",
    "List each class as {id, name}.",
)
CLASS_OTHER = declare(
    "CLASS_OTHER",
    "error",
    "A data set has classes that the training set or the weights do not have, or DATASETS.CLASSES names one that does"
    " not exist.",
    "Correct the names, or name the classes to train in DATASETS.CLASSES.",
)
CLASS_COUNT = declare(
    "CLASS_COUNT",
    "error",
    "NUM_CLASSES is not the number of classes of the data plus 1 (the background).",
    "Set it as the message says, or to 0.",
)
CONFIG = declare(
    "CONFIG_UNUSABLE",
    "error",
    "The model or the augmentation of the configuration cannot be built.",
    "Correct the keys that the message names.",
)
IMAGES_MERGED = declare(
    "IMAGES_MERGED",
    "note",
    "Several entries of `images` are read as one image.",
    "Nothing, if they are the same image.",
)
CLASS_MERGED = declare(
    "CLASS_MERGED",
    "note",
    "Several categories are read as one class, or a placeholder category is left out.",
    "Nothing, if they mean the same.",
)
BACKGROUND = declare(
    "CLASS_BACKGROUND",
    "warning",
    "A class is called background, or has the id 0 and no boxes. What has no box is background; a class of that name is"
    " learned as an object.",
    "If it stands for no object, set DATASETS.DROP_BACKGROUND True.",
)
NAME_SPELLING = declare(
    "FILE_NAME_SPELLING",
    "note",
    "File names are spelled otherwise than in the image folder. The files were found.",
    "Correct the names if other programs are to read the data.",
)
READ_OTHERWISE = declare(
    "ANN_READ_OTHERWISE",
    "note",
    "Something in an annotation file is read otherwise than it stands there.",
    "Nothing, if the message describes what is meant.",
)

_ERRORS: tuple[tuple[str, Code], ...] = (
    (r"^unknown data set|^DATASETS\.CATALOG\.", UNKNOWN_SET),
    (r"no annotation file|no image folder|no such (file|folder)", MISSING),
    (r"^DATASETS\.(TRAIN|TEST) is empty", NO_SET),
    (r"did you mean .*Rename it|rename it to `", MISSPELT),
    (
        r"not valid JSON|not UTF-8|not a COCO file|cannot be read|must be a list of objects|nested too",
        UNREADABLE,
    ),
    (r"occurs twice", ID_REPEATED),
    (r"is not in `(images|categories)`", ID_UNKNOWN),
    (r"bbox \(", BOX_INVALID),
    (r"`categories` is empty|no usable `name`|`name` .*is not valid", CLASS_INVALID),
    (r"\bid` must be|no usable `id`|must be an integer or text", ID_INVALID),
    (r"width and height must be|`?file_name`?|area \(|iscrowd|ignore \(", VALUE_INVALID),
    (r"classes that are not trained|have different classes|DATASETS\.CLASSES", CLASS_OTHER),
    (r"\(background included\)", CLASS_COUNT),
)
_NOTES: tuple[tuple[str, Code, str], ...] = (
    (r"spelled differently", NAME_SPELLING, ""),
    (r"which is not read; did you mean", MISSPELT, "warning"),
    (r"read as one image", IMAGES_MERGED, ""),
    (r"is trained like any other class", BACKGROUND, ""),
    (r"one class|placeholder|supercategory", CLASS_MERGED, ""),
)


def of_errors(lines: Iterable[str], dataset: str) -> Iterator[Finding]:
    """Findings for lines of errors of one data set; lines of one kind become one finding with their number."""
    groups: dict[Code, list[str]] = {}
    for line in lines:
        code = next((code for pattern, code in _ERRORS if re.search(pattern, line)), FAULTY)
        groups.setdefault(code, []).append(line)
    for code, found in groups.items():
        more = f" (and {len(found) - 1} more like this)" if len(found) > 1 else ""
        examples = [Example(text=line) for line in found[1 : MOST_EXAMPLES + 1]]
        yield code.finding(f"{found[0]}{more}", len(found), dataset, examples)


def of_note(line: str, dataset: str) -> Finding:
    """A finding for a warning of a reader."""
    for pattern, code, severity in _NOTES:
        if re.search(pattern, line):
            return code.finding(line, 1, dataset, severity=severity)
    return READ_OTHERWISE.finding(line, 1, dataset)
