"""The names of data sets and augmentations.

They stand apart from `datasets`, so that recipes can be read and compared
without TensorFlow.
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
