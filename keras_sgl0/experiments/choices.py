"""The names of data sets and augmentations.

They are not in `datasets`, which needs TensorFlow; recipes do not.
"""

DATASETS = (
    "digits",
    "mnist",
    "fashion_mnist",
    "cifar10",
    "cifar100",
    "svhn_cropped",
    "tiny_imagenet",
)
AUGMENTATIONS = ("none", "crop", "crop_flip")
