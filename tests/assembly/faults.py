"""Faults that people plant without knowing it, one function each, for `test_planted_faults.py`."""

from __future__ import annotations

import json
import shutil
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from tests.assembly.planted import CLASSES, HEIGHT, WIDTH, Toy, another, each_box, fault, picture

# ---------------------------------------------------------------- the annotation file cannot be read


@fault("DATASET_UNKNOWN")
def name_that_is_not_declared(toy: Toy) -> None:
    toy.set("DATASETS.TEST", "('toy_vall',)")


@fault("DATASET_MISSING")
def annotation_file_missing(toy: Toy) -> None:
    toy.val = None


@fault("DATASET_MISSING")
def image_folder_missing(toy: Toy) -> None:
    (toy.root / "val").rename(toy.root / "validation")


@fault("DATASET_NONE")
def no_test_set(toy: Toy) -> None:
    toy.set("DATASETS.TEST", "()")


@fault("ANN_UNREADABLE")
def broken_json(toy: Toy) -> None:
    (toy.root / "train.json").write_text(json.dumps(toy.train)[:-40])
    toy.train = None


@fault("ANN_UNREADABLE")
def file_of_zero_bytes(toy: Toy) -> None:
    (toy.root / "val.json").write_bytes(b"")
    toy.val = None


@fault("ANN_UNREADABLE")
def results_instead_of_annotations(toy: Toy) -> None:
    row = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}
    (toy.root / "val.json").write_text(json.dumps([row]))
    toy.val = None


@fault("ANN_UNREADABLE")
def text_that_is_not_utf8(toy: Toy) -> None:
    (toy.root / "val.json").write_bytes(b'{"images": [], "categories": [{"id": 1, "name": "d\xe9faut"}]}')
    toy.val = None


@fault("ANN_KEY_MISSPELT")
def key_of_annotations_misspelt(toy: Toy) -> None:
    for row in toy.boxes:
        row["bbx"] = row.pop("bbox")


@fault("ANN_KEY_MISSPELT")
def section_misspelt(toy: Toy) -> None:
    toy.train["annotation"] = toy.train.pop("annotations")


@fault("ID_REPEATED")
def annotation_id_twice(toy: Toy) -> None:
    toy.boxes[1]["id"] = toy.boxes[0]["id"]


@fault("ID_REPEATED")
def image_id_twice(toy: Toy) -> None:
    toy.train["images"][1]["id"] = toy.train["images"][0]["id"]


@fault("ID_UNKNOWN")
def image_id_unknown(toy: Toy) -> None:
    toy.boxes[0]["image_id"] = 99999


@fault("ID_UNKNOWN")
def category_id_unknown(toy: Toy) -> None:
    toy.boxes[0]["category_id"] = 77


@fault("ID_INVALID")
def image_id_is_a_list(toy: Toy) -> None:
    toy.train["images"][0]["id"] = [1]


@fault("CLASS_SHIFTED", "ID_UNKNOWN")
def category_ids_begin_at_zero(toy: Toy) -> None:
    for row in toy.boxes:
        row["category_id"] -= 1


@fault("BOX_INVALID")
def box_of_three_numbers(toy: Toy) -> None:
    toy.boxes[0]["bbox"] = [1, 2, 3]


@fault("BOX_INVALID")
def box_with_nan(toy: Toy) -> None:
    toy.boxes[4]["bbox"][2] = float("nan")


@fault("VALUE_INVALID")
def crowd_flag_of_seven(toy: Toy) -> None:
    toy.boxes[0]["iscrowd"] = 7


@fault("VALUE_INVALID")
def negative_height(toy: Toy) -> None:
    toy.train["images"][0]["height"] = -5


@fault("CLASS_INVALID")
def no_categories(toy: Toy) -> None:
    toy.train["categories"] = []


@fault("CLASS_OTHER")
def validation_has_a_class_of_its_own(toy: Toy) -> None:
    toy.val["categories"][2]["name"] = "whole"


@fault("CLASS_OTHER")
def class_to_train_misspelt(toy: Toy) -> None:
    toy.set("DATASETS.CLASSES", "('scrach',)")


@fault("CLASS_COUNT")
def number_of_classes_without_background(toy: Toy) -> None:
    toy.set("MODEL.ATSS.NUM_CLASSES", len(CLASSES))


@fault("CONFIG_UNUSABLE")
def argument_that_the_body_does_not_take(toy: Toy) -> None:
    toy.set("MODEL.BACKBONE.ARGS", "{'dephth': 18}")


# ---------------------------------------------------------------- read otherwise than written


@fault("IMAGES_MERGED")
def image_listed_twice(toy: Toy) -> None:
    toy.train["images"].append(dict(toy.train["images"][0]))


@fault("CLASS_MERGED")
def class_under_two_ids(toy: Toy) -> None:
    toy.train["categories"].append({"id": 9, "name": "dent"})


@fault("FILE_NAME_SPELLING")
def names_with_backslashes(toy: Toy) -> None:
    for row in toy.train["images"]:
        row["file_name"] = f"train\\{row['file_name']}"


# ---------------------------------------------------------------- boxes


@fault("BOX_NO_AREA")
def box_of_no_width(toy: Toy) -> None:
    toy.boxes[0]["bbox"][2] = 0


@fault("BOX_NO_AREA", "BOX_LOST")
def width_and_height_negative(toy: Toy) -> None:
    each_box(toy, lambda box: [box[0] + box[2], box[1] + box[3], -box[2], -box[3]])


@fault("BOX_OUTSIDE")
def box_outside(toy: Toy) -> None:
    toy.boxes[0]["bbox"] = [WIDTH + 5, 5, 20, 20]


@fault("BOX_REACHES_OUT")
def box_over_the_edge(toy: Toy) -> None:
    toy.boxes[0]["bbox"] = [WIDTH - 10, 5, 20, 20]


@fault("BOX_LARGER_THAN_IMAGE")
def box_larger_than_its_image(toy: Toy) -> None:
    toy.boxes[0]["bbox"] = [-20, 5, WIDTH + 40, 20]


@fault("BOX_UNDER_A_PIXEL")
def box_of_half_a_pixel(toy: Toy) -> None:
    toy.boxes[0]["bbox"] = [10, 10, 0.5, 20]


@fault("BOX_TINY")
def boxes_of_four_pixels(toy: Toy) -> None:
    each_box(toy, lambda box: [box[0], box[1], 4, 4 + box[0] / 100])


@fault("BOX_SLENDER")
def box_like_a_hair(toy: Toy) -> None:
    toy.boxes[0]["bbox"] = [5, 5, 100, 2]


@fault("BOX_WHOLE_IMAGE")
def labels_of_whole_images(toy: Toy) -> None:
    each_box(toy, lambda box: [0, 0, WIDTH, HEIGHT])


@fault("BOX_RELATIVE")
def relative_boxes(toy: Toy) -> None:
    each_box(toy, lambda box: [box[0] / WIDTH, box[1] / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT])


@fault("BOX_CORNERS")
def corner_boxes(toy: Toy) -> None:
    each_box(toy, lambda box: [box[0] + 30, box[1] + 20, min(box[0] + 60, WIDTH), min(box[1] + 60, HEIGHT)])


@fault("BOX_PERCENT")
def boxes_in_percent(toy: Toy) -> None:
    for row in toy.train["images"]:
        cv2.imwrite(str(toy.image(row["id"])), cv2.resize(picture(row["id"]), (400, 300)))
        row |= {"height": 300, "width": 400}
    each_box(toy, lambda box: [100 * box[0] / WIDTH, 100 * box[1] / HEIGHT, 10, 20])
    toy.boxes[0]["bbox"] = [0, 0, 100, 100]


@fault("BOX_FAR_OUT")
def boxes_of_a_larger_picture(toy: Toy) -> None:
    each_box(toy, lambda box: [box[0] * 1.2, box[1] * 1.2, box[2] * 2.5, box[3] * 3.5])


@fault("BOX_ALL_EQUAL")
def placeholder_boxes(toy: Toy) -> None:
    each_box(toy, lambda box: [10, 10, 50, 50])


@fault("AREA_WRONG")
def area_of_something_else(toy: Toy) -> None:
    toy.boxes[0]["area"] = 10 * WIDTH * HEIGHT


@fault("BOX_REPEATED")
def box_twice(toy: Toy) -> None:
    toy.boxes.append(another(toy.boxes[0]))


@fault("BOX_CONFLICT")
def box_of_two_classes(toy: Toy) -> None:
    toy.boxes.append(another(toy.boxes[0], category_id=2))


@fault("BOX_NEARLY_REPEATED")
def box_labelled_by_two_people(toy: Toy) -> None:
    box = toy.boxes[0]["bbox"]
    toy.boxes.append(another(toy.boxes[0], bbox=[box[0] + 0.5, box[1], box[2], box[3]]))


@fault("BOX_TOO_MANY")
def more_objects_than_detections(toy: Toy) -> None:
    toy.set("TEST.DETECTIONS_PER_IMG", 2)


@fault("ANCHOR_UNREACHABLE")
def anchors_much_too_large(toy: Toy) -> None:
    toy.set("MODEL.ATSS.ANCHOR_SIZES", "(128, 192, 256, 512, 512)")


@fault("ANCHOR_NO_POSITIVE")
def no_anchor_is_good_enough(toy: Toy) -> None:
    toy.set("MODEL.ATSS.POSITIVE_TYPE", "IoU", "MODEL.ATSS.ANCHOR_SIZES", "(128, 192, 256, 512, 512)")


# ---------------------------------------------------------------- classes


@fault("CLASS_EMPTY")
def class_without_boxes(toy: Toy) -> None:
    toy.train["annotations"] = [row for row in toy.boxes if row["category_id"] != 3]


@fault("CLASS_RARE", "CLASS_UNEVEN")
def class_with_one_box(toy: Toy) -> None:
    first, *others = toy.boxes
    first["category_id"] = 3
    for number, row in enumerate(others):
        row["category_id"] = 1 + number % 2
    toy.train["annotations"] += [
        another(row, id=9500 + number, category_id=1, bbox=[number % 9, 60 + number / 3, 30, 9])
        for number, row in enumerate(others)
    ]


@fault("CLASS_ONLY_ONE")
def all_boxes_of_one_class(toy: Toy) -> None:
    for row in toy.boxes:
        row["category_id"] = 1


@fault("CLASS_BACKGROUND")
def background_as_a_class(toy: Toy) -> None:
    for data in (toy.train, toy.val):
        data["categories"].append({"id": 0, "name": "background"})
        data["annotations"][0]["category_id"] = 0


@fault("CLASS_ALIKE")
def class_in_two_spellings(toy: Toy) -> None:
    for data in (toy.train, toy.val):
        data["categories"][1]["name"] = "Scratches"
        data["categories"][0]["name"] = "scratche"


@fault("CLASS_NUMBERED")
def numbers_for_names(toy: Toy) -> None:
    for data in (toy.train, toy.val):
        for row in data["categories"]:
            row["name"] = str(row["id"])


@fault("CLASS_FLIPPED")
def left_and_right_mirrored(toy: Toy) -> None:
    for data in (toy.train, toy.val):
        data["categories"][0]["name"], data["categories"][1]["name"] = "left_edge", "right_edge"


@fault("CLASS_FLIPPED")
def left_and_right_mirrored_by_a_step(toy: Toy) -> None:
    left_and_right_mirrored(toy)
    steps = "[{'name': 'HorizontalFlip', 'prob': 0.3}]"
    toy.set("INPUT.HORIZONTAL_FLIP_PROB_TRAIN", 0, "INPUT.AUGMENTATIONS", steps)


@fault("CLASS_UNTRAINED", "CLASS_EMPTY")
def class_in_validation_only(toy: Toy) -> None:
    toy.train["annotations"] = [row for row in toy.boxes if row["category_id"] != 2]


@fault("CLASS_UNTESTED")
def class_in_training_only(toy: Toy) -> None:
    toy.val["annotations"] = [row for row in toy.val["annotations"] if row["category_id"] != 2]


@fault("CLASS_IDS_DIFFER")
def other_ids_in_validation(toy: Toy) -> None:
    for row in toy.val["categories"]:
        row["id"] *= 10
    for row in toy.val["annotations"]:
        row["category_id"] *= 10


@fault("CLASS_SHIFTED")
def ids_of_validation_begin_at_zero(toy: Toy) -> None:
    for row in toy.val["categories"]:
        row["id"] -= 1
    for row in toy.val["annotations"]:
        row["category_id"] -= 1


# ---------------------------------------------------------------- images


@fault("NO_BOXES")
def no_annotations(toy: Toy) -> None:
    toy.train["annotations"] = []


@fault("NO_BOXES")
def all_are_ignore_regions(toy: Toy) -> None:
    for row in toy.boxes:
        row["iscrowd"] = 1


@fault("IGNORED_MANY")
def a_third_ignored(toy: Toy) -> None:
    for row in toy.boxes[::3]:
        row["iscrowd"] = 1


@fault("IMAGES_EMPTY")
def most_images_empty(toy: Toy) -> None:
    toy.train["annotations"] = [row for row in toy.boxes if row["image_id"] <= 5]


@fault("FILE_UNREADABLE")
def image_missing(toy: Toy) -> None:
    toy.image().unlink()


@fault("FILE_UNREADABLE", opens_images=True)
def image_truncated(toy: Toy) -> None:
    data = toy.image().read_bytes()
    toy.image().write_bytes(data[: len(data) // 2])


@fault("FILE_UNREADABLE")
def page_in_place_of_an_image(toy: Toy) -> None:
    toy.image().write_bytes(b"<html><body>404 Not Found</body></html>")


@fault("FILE_DAMAGED", opens_images=True)
def jpeg_with_a_gap(toy: Toy) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    toy.image().write_bytes(data[: len(data) * 2 // 3] + b"\xff\xd9")


@fault("SIZE_WRONG")
def width_and_height_exchanged(toy: Toy) -> None:
    for row in toy.train["images"]:
        row["height"], row["width"] = row["width"], row["height"]


@fault("SIZE_WRONG")
def images_resized_after_labelling(toy: Toy) -> None:
    for row in toy.train["images"]:
        row |= {"height": 2 * HEIGHT, "width": 2 * WIDTH}


@fault("FILE_REPEATED")
def file_under_two_ids(toy: Toy) -> None:
    toy.train["images"][1]["file_name"] = toy.train["images"][0]["file_name"]
    by_image: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for row in toy.boxes:
        by_image.get(row["image_id"], []).append(row)
    for one, other in zip(by_image[1], by_image[2], strict=True):
        other["bbox"] = one["bbox"]


@fault("FILE_UNLISTED")
def images_without_entry(toy: Toy) -> None:
    cv2.imwrite(str(toy.root / "train" / "new.png"), picture(77))


@fault("IMAGE_LONG")
def image_like_a_ribbon(toy: Toy) -> None:
    cv2.imwrite(str(toy.image()), cv2.resize(picture(1), (700, 90)))
    toy.train["images"][0] |= {"height": 90, "width": 700}


@fault("IMAGE_ENLARGED")
def input_much_larger_than_images(toy: Toy) -> None:
    toy.set("INPUT.MIN_SIZE_TRAIN", "(384,)", "INPUT.MAX_SIZE_TRAIN", 512)


@fault("IMAGE_REDUCED")
def photographs_made_small(toy: Toy) -> None:
    cv2.imwrite(str(toy.image()), cv2.resize(picture(1), (800, 600)))
    toy.train["images"][0] |= {"height": 600, "width": 800}


@fault("IMAGE_FLAT", opens_images=True)
def black_image(toy: Toy) -> None:
    cv2.imwrite(str(toy.image()), np.zeros((HEIGHT, WIDTH, 3), np.uint8))


@fault("IMAGE_TURNED", opens_images=True)
def photograph_with_orientation(toy: Toy) -> None:
    exif = Image.Exif()
    exif[274] = 6
    name = "1.jpg"
    Image.fromarray(picture(1)).rotate(90, expand=True).save(toy.root / "train" / name, exif=exif)
    toy.train["images"][0]["file_name"] = name


@fault("IMAGE_DEEP", "IMAGE_DEPTHS_DIFFER", opens_images=True)
def one_image_of_16_bits(toy: Toy) -> None:
    cv2.imwrite(str(toy.image()), picture(1).astype(np.uint16) * 16)


@fault("IMAGE_BEYOND_RANGE", "IMAGE_DEEP", opens_images=True)
def range_of_another_camera(toy: Toy) -> None:
    for row in toy.train["images"]:
        cv2.imwrite(str(toy.image(row["id"])), picture(row["id"]).astype(np.uint16))
    toy.set("INPUT.VALUE_RANGE", "(0.0, 65535.0)")


@fault("IMAGE_CHANNELS_DIFFER", opens_images=True)
def one_grey_image(toy: Toy) -> None:
    cv2.imwrite(str(toy.image()), picture(1)[:, :, 0])


@fault("TILE_PLAN", "TILE_CUTS_BOX")
def boxes_larger_than_the_overlap(toy: Toy) -> None:
    toy.boxes[0]["bbox"] = [2, 2, 120, 90]
    toy.set("TILING.SIZE", 64, "TILING.OVERLAP", 4)


@fault("TILE_PLAN", "TILE_LARGER_THAN_IMAGES")
def tiles_larger_than_images(toy: Toy) -> None:
    toy.set("TILING.SIZE", 1024)


# ---------------------------------------------------------------- splits


@fault("SPLIT_SAME_SET")
def test_on_the_training_set(toy: Toy) -> None:
    toy.set("DATASETS.TEST", "('toy_train',)")


@fault("SPLIT_SAME_FILE")
def same_files_in_both(toy: Toy) -> None:
    toy.set("DATASETS.CATALOG.toy_val.img_dir", "train")
    toy.val = {**toy.train, "images": toy.train["images"][:3], "annotations": toy.boxes[:9]}


@fault("SPLIT_SAME_NAME")
def same_names_in_both(toy: Toy) -> None:
    (toy.root / "val" / "v1.png").rename(toy.root / "val" / "1.png")
    toy.val["images"][0]["file_name"] = "1.png"


@fault("SPLIT_IDENTICAL", opens_images=True)
def image_copied_into_validation(toy: Toy) -> None:
    shutil.copy(toy.image(), toy.root / "val" / "v1.png")


@fault("SPLIT_NEAR_DUPLICATE", opens_images=True)
def image_saved_again_into_validation(toy: Toy) -> None:
    brighter = np.clip(picture(1).astype(np.int16) + 3, 0, 255).astype(np.uint8)
    cv2.imwrite(str(toy.root / "val" / "v1.jpg"), brighter)
    toy.val["images"][0]["file_name"] = "v1.jpg"


@fault("IMAGE_IDENTICAL", opens_images=True)
def image_twice_in_training(toy: Toy) -> None:
    shutil.copy(toy.image(1), toy.image(2))


@fault("IMAGE_NEAR_DUPLICATE", opens_images=True)
def frames_of_a_film(toy: Toy) -> None:
    cv2.imwrite(str(toy.image(2)), picture(1) // 2 + 60)
    cv2.imwrite(str(toy.image(1)), picture(1) // 2 + 61)


# ---------------------------------------------------------------- weights


def _weights(toy: Toy, **changes: Any) -> None:
    """Weights for the model of the configuration, as a training leaves them."""
    from engine.assembly.model import build_model
    from engine.checkpoint import save
    from engine.checkpoint.io import FORMAT
    from engine.config import load_config

    model = build_model(load_config(toy.config, []), CLASSES)
    state = {"format": FORMAT, "model": model.state_dict(), "class_names": list(CLASSES), "conventions": {}}
    save(toy.root / "w.pth", {**state, **changes})
    toy.set("MODEL.WEIGHT", str(toy.root / "w.pth"))


@fault("WEIGHTS_UNUSABLE")
def weights_missing(toy: Toy) -> None:
    toy.set("MODEL.WEIGHT", str(toy.root / "nothing.pth"))


@fault("WEIGHTS_UNUSABLE")
def weights_of_another_model(toy: Toy) -> None:
    torch.save({"encoder.weight": torch.zeros(3)}, toy.root / "w.pth")
    toy.set("MODEL.WEIGHT", str(toy.root / "w.pth"))


@fault("WEIGHTS_REMOTE")
def weights_to_be_downloaded(toy: Toy) -> None:
    toy.set("MODEL.WEIGHT", "https://example.org/nowhere/model.pth")


@fault("WEIGHTS_CLASSES")
def weights_of_other_classes(toy: Toy) -> None:
    _weights(toy, class_names=["cat", "dog", "hole"])


@fault("WEIGHTS_CONVENTIONS")
def weights_of_other_colours(toy: Toy) -> None:
    _weights(toy, conventions={"INPUT.TO_BGR255": False, "INPUT.PIXEL_MEAN": [0.485, 0.456, 0.406]})


@fault("WEIGHTS_PARTLY")
def weights_of_a_deeper_head(toy: Toy) -> None:
    _weights(toy)
    toy.set("MODEL.ATSS.NUM_CONVS", 2)


# ---------------------------------------------------------------- plan and machine


@fault("RATE_PER_BATCH")
def rate_of_sixteen_images_for_one(toy: Toy) -> None:
    toy.set("SOLVER.BASE_LR", 0.02, "SOLVER.IMS_PER_BATCH", 1)


@fault("RATE_PER_BATCH")
def rate_of_sgd_for_adamw(toy: Toy) -> None:
    toy.set("SOLVER.OPTIMIZER", "AdamW", "SOLVER.BASE_LR", 0.02)


@fault("BATCH_LARGER_THAN_DATA")
def batch_larger_than_the_data(toy: Toy) -> None:
    toy.set("SOLVER.IMS_PER_BATCH", 16)


@fault("SCHEDULE_SHORT")
def less_than_one_pass(toy: Toy) -> None:
    toy.set("SOLVER.MAX_ITER", 4, "SOLVER.STEPS", "(3,)", "SOLVER.WARMUP_ITERS", 0)


@fault("SCHEDULE_LONG")
def iterations_of_coco(toy: Toy) -> None:
    toy.set("SOLVER.MAX_ITER", 90000, "SOLVER.STEPS", "(60000, 80000)")


@fault("SCHEDULE_NO_DROP")
def steps_beyond_the_end(toy: Toy) -> None:
    toy.set("SOLVER.STEPS", "(60000, 80000)")


@fault("SCHEDULE_WARMUP")
def warm_up_longer_than_training(toy: Toy) -> None:
    toy.set("SOLVER.WARMUP_ITERS", 500)


@fault("DISK_SHORT", "COST", opens_images=True)
def a_checkpoint_every_iteration(toy: Toy) -> None:
    toy.set("SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_ITER", 10**8, "SOLVER.STEPS", "(9000,)")


@fault("MEMORY_SHORT", "TIME_LONG", opens_images=True)
def images_of_a_satellite(toy: Toy) -> None:
    toy.set("INPUT.MIN_SIZE_TRAIN", "(2000,)", "INPUT.MAX_SIZE_TRAIN", 2000, "SOLVER.IMS_PER_BATCH", 65536)
    toy.set("SOLVER.MAX_ITER", 10**6)


@fault("WORKERS_MANY")
def more_workers_than_cpus(toy: Toy) -> None:
    toy.set("DATALOADER.NUM_WORKERS", 500)


@fault("SHM_SMALL")
def batches_larger_than_shared_memory(toy: Toy) -> None:
    toy.set("SOLVER.IMS_PER_BATCH", 65536, "INPUT.MAX_SIZE_TRAIN", 2000, "INPUT.MIN_SIZE_TRAIN", "(2000,)")
