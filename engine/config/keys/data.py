"""Keys of images, data sets and their loading."""

from __future__ import annotations

from pathlib import Path

from engine.config.declaration import MAX_SIZE, MIN_SIZE, Entries, key
from engine.config.keys.augmentations import STEPS

# One key after another as in a table, so that a search for a key shows its default too.
# fmt: off
_CATALOG = Entries(
    "names",
    "{img_dir: FOLDER, ann_file: FILE}",
    {
        "img_dir": key("DATASETS.CATALOG.NAME.img_dir", "", "The folder of its images.", type=Path,
            not_empty=True),
        "ann_file": key("DATASETS.CATALOG.NAME.ann_file", "", "Its annotations: a COCO JSON file, or a file or folder "
            "of another format.", type=Path, not_empty=True),
        "format": key("DATASETS.CATALOG.NAME.format", "", "The format of its annotations; if it is missing, it is "
            "recognised.", ours=True, words=("coco", "voc", "yolo", "txt", "csv", "labelme", "competition"),
            registry="engine.data.formats.FORMATS"),
        "unlisted_are_empty": key("DATASETS.CATALOG.NAME.unlisted_are_empty", False, "Images in img_dir that the "
            "annotations do not name are images without boxes; by default they are no part of the data set.",
            ours=True),
        "type": key("DATASETS.CATALOG.NAME.type", "CocoDataset", "The class of the data set; may be missing.",
            words=("CocoDataset",), registry="engine.data.dataset.DATASET_TYPES"),
        "repeat": key("DATASETS.CATALOG.NAME.repeat", 1.0, "How often each of its images is used in a pass over the "
            "training images, on average; may be a fraction, and may be missing.", ours=True, between=(0.001, 1000)),
    },
)
_CLASS_MAP = Entries("names of classes", "a name, or \"\"", {},
    key("DATASETS.CLASS_MAP.NAME", "", "The new name; \"\" for none."))

KEYS = [
    key("INPUT.MIN_SIZE_TRAIN", (800,), "Lengths of the short side in training, pixels; one is drawn for each image.",
        between=(MIN_SIZE, MAX_SIZE), not_empty=True),
    key("INPUT.MIN_SIZE_RANGE_TRAIN", (-1, -1), "(low, high): draw the short side from this range instead, both ends "
        "included; (-1, -1) is off.", length=(2, "low and high"), between=(-1, MAX_SIZE)),
    key("INPUT.MAX_SIZE_TRAIN", 1333, "Limit of the long side in training, pixels.", between=(MIN_SIZE, MAX_SIZE)),
    key("INPUT.MIN_SIZE_TEST", 800, "Length of the short side in testing, pixels.", between=(MIN_SIZE, MAX_SIZE)),
    key("INPUT.MAX_SIZE_TEST", 1333, "Limit of the long side in testing, pixels.", between=(MIN_SIZE, MAX_SIZE)),
    key("INPUT.PIXEL_MEAN", (102.9801, 115.9465, 122.7717), "Subtracted from each channel, in the order and range that "
        "TO_BGR255 selects; one number for each of CHANNELS.", between=(-1e6, 1e6), not_empty=True),
    key("INPUT.PIXEL_STD", (1.0, 1.0, 1.0), "Each channel is divided by this after the mean is subtracted.",
        between=(0, 1e6), not_empty=True),
    key("INPUT.CHANNELS", 3, "Channels of the images: 3 is colours, 1 is grey (either is converted into the other), 4 "
        "is colours and one more (transparency, infrared); others are those of the file or its pages.", ours=True,
        between=(1, 256)),
    key("INPUT.ORIENTATION", "auto", "Whether images are turned as their EXIF or TIFF orientation says: apply, ignore, "
        "or auto: not where the annotations state the size of the image as stored.", ours=True,
        words=("auto", "apply", "ignore")),
    key("INPUT.VALUE_RANGE", (), "(low, high): the values of images of more than 8 bits, or floats, that become 0 and "
        "255; () is measured on the training images and stored in the checkpoint. Images of 8 bits are not affected.",
        ours=True, type=tuple[float, ...], between=(-1e30, 1e30)),
    key("INPUT.TO_BGR255", True, "True: BGR in 0..255 (Caffe2 weights); False: RGB in 0..1 (torchvision weights). "
        "Of 4 CHANNELS the first three are colours; other numbers keep their order."),
    key("INPUT.HORIZONTAL_FLIP_PROB_TRAIN", 0.5, "Probability of mirroring left to right.", ours=True, between=(0, 1)),
    key("INPUT.VERTICAL_FLIP_PROB_TRAIN", 0.0, "Probability of mirroring top to bottom.", ours=True, between=(0, 1)),
    key("INPUT.BRIGHTNESS", 0.0, "Colour jitter: brightness is multiplied by a factor drawn from [1 - x, 1 + x]; 0 is "
        "off.", ours=True, between=(0, 10)),
    key("INPUT.CONTRAST", 0.0, "The same for contrast.", ours=True, between=(0, 10)),
    key("INPUT.SATURATION", 0.0, "The same for saturation.", ours=True, between=(0, 10)),
    key("INPUT.HUE", 0.0, "Hue is shifted by a fraction of the colour circle drawn from [-x, x]; 0 is off.", ours=True,
        between=(0, 0.5)),
    key("INPUT.AUGMENTATIONS", (), "Steps of augmentation in their order, [{name: Mosaic, prob: 0.3}, ...], applied to "
        "the image as read; resizing, flips and colour jitter follow. docs/augmentation.md has a table of them.",
        ours=True, type=tuple[dict, ...], entries=STEPS),
    key("DATASETS.TRAIN", (), "Names of the data sets to train on: built-in ones (coco_2017_train, ...) or those of "
        "CATALOG.", type=tuple[str, ...]),
    key("DATASETS.TEST", (), "Names of the data sets to test on.", type=tuple[str, ...]),
    key("DATASETS.VAL", (), "Names of the data sets to evaluate on during training, see SOLVER.VALIDATION.", ours=True,
        type=tuple[str, ...]),
    key("DATASETS.CLASSES", (), "Names of the only classes to train and test, in the order of their labels; () "
        "takes all of the first training set.", ours=True, type=tuple[str, ...]),
    key("DATASETS.OTHER_CLASSES", "drop", "What becomes of the boxes of other classes than CLASSES: drop makes them "
        "background, ignore makes them regions that are neither positive nor negative.", ours=True,
        words=("drop", "ignore")),
    key("DATASETS.CLASS_MAP", {}, "{name in the annotation file: new name}: renames classes, in all data sets, before "
        "CLASSES selects. Classes that get the same name become one, with the lowest of their category ids; boxes of "
        "one that gets none (\"\") become what OTHER_CLASSES says.", ours=True, entries=_CLASS_MAP),
    key("DATASETS.DROP_BACKGROUND", False, "Leave out a class that stands for no object, with its boxes: one called "
        "background, or of category id 0 without boxes.", ours=True),
    key("DATASETS.ROOT", "datasets", "Folder to which relative paths of the catalog are relative.", ours=True,
        type=Path),
    key("DATASETS.CATALOG", {}, "Your own data sets, any number: {name: {img_dir: folder of images, ann_file: "
        "annotations}}, in any format of docs/data.md or one of your own (format: NAME).", ours=True, entries=_CATALOG),
    key("DATALOADER.NUM_WORKERS", 4, "Processes that read images; 0 reads in the training process.", between=(0, 1024)),
    key("DATALOADER.TIMEOUT", 600, "A run that waits for images ends with an error if none of its worker processes has "
        "begun or finished reading one for so many seconds (a network drive that hangs); 0 waits for ever.", ours=True,
        between=(0, 10**7)),
    key("DATALOADER.SIZE_DIVISIBILITY", 0, "Height and width of a batch are padded to a multiple of this; 0 is off.",
        between=(0, 4096)),
    key("DATALOADER.ASPECT_RATIO_GROUPING", True, "Keep landscape and portrait images in separate batches, which saves "
        "padding."),
    key("DATALOADER.FILTER_EMPTY", False, "Leave out training images without boxes; by default they are trained on.",
        ours=True),
    key("DATALOADER.REPEAT_THRESHOLD", 0.0, "Images of rare classes are used several times in a pass: those with a "
        "class that a share f of the images has, sqrt(threshold / f) times if that is above 1; 0 is off.", ours=True,
        between=(0, 1)),
    key("DATALOADER.EMPTY_SHARE", -1.0, "The share of images without boxes in every batch, from 0 to 0.95; -1 uses "
        "them as often as the others.", ours=True, between=(-1, 0.95)),
]
# fmt: on
