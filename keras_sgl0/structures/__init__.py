"""Which channels go together: the rules of the layers, and liveness."""

# Each of these registers the rules of its layers as it is imported.
from keras_sgl0.structures import (
    attention,
    channelwise,
    convolutions,
    dense,
    einsum_dense,
    embeddings,
    kernels,
    mixing,
    named,
    noise,
    normalization,
    products,
    recurrent,
    reductions,
    reshaping,
    slicing,
    windows,
    wrappers,
)

__all__ = [
    "attention",
    "channelwise",
    "convolutions",
    "dense",
    "einsum_dense",
    "embeddings",
    "kernels",
    "mixing",
    "named",
    "noise",
    "normalization",
    "products",
    "recurrent",
    "reductions",
    "reshaping",
    "slicing",
    "windows",
    "wrappers",
]
