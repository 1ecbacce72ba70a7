"""The papers' networks. Each takes a regularizer and imports none."""

from keras_sgl0.models.lenet import LeNet5Caffe

__all__ = ["LeNet5Caffe"]
