"""Transforms from an image as read to the input of the model, applied to the boxes as well.

A transform is a callable `(image, targets) -> (image, targets)` on a tensor (C, H, W), BGR if it has three channels,
uint8, or float32 in 0..255 if the file has more than 8 bits, and keeps this type; `Normalize` ends the chain with a
float32 tensor. Random transforms draw from torch's default generator, like those of `torchvision.transforms.v2`, which
can therefore stand in the same chain; `random_state` makes what they draw a function of a key.

Pixels are transformed by torchvision.transforms.v2, boxes by `box_ops`, since tv_tensors have no inclusive-pixel
convention.
"""

from engine.data.resizing import resized_size
from engine.data.transforms.albumentations_step import AlbumentationsStep
from engine.data.transforms.chain import Transform, split_normalize, test_transform, train_transform
from engine.data.transforms.copy_paste import CopyPaste
from engine.data.transforms.crops import Cutout, Expand, IoUCrop, RandomCrop
from engine.data.transforms.flips import RandomHorizontalFlip, RandomVerticalFlip, Rotate90
from engine.data.transforms.mixing import MixUp, Mosaic
from engine.data.transforms.photometric import Blur, Clahe, Jpeg, Noise, PhotometricDistortion
from engine.data.transforms.pixels import ColorJitter, Normalize
from engine.data.transforms.randomness import random_state
from engine.data.transforms.resize import LargeScaleJitter, MultiScale, Resize, resize_pixels
from engine.data.transforms.step import AUGMENTATIONS, Scene, SceneStep, Sometimes, Step

__all__ = [
    "AUGMENTATIONS",
    "AlbumentationsStep",
    "Blur",
    "Clahe",
    "ColorJitter",
    "CopyPaste",
    "Cutout",
    "Expand",
    "IoUCrop",
    "Jpeg",
    "LargeScaleJitter",
    "MixUp",
    "Mosaic",
    "MultiScale",
    "Noise",
    "Normalize",
    "PhotometricDistortion",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "Resize",
    "Rotate90",
    "Scene",
    "SceneStep",
    "Sometimes",
    "Step",
    "Transform",
    "random_state",
    "resize_pixels",
    "resized_size",
    "split_normalize",
    "test_transform",
    "train_transform",
]
