"""A model seen as calls, kernels and channels: the one seam to Keras."""
