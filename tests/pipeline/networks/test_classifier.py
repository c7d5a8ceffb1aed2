"""The classifier's head."""

import torch

from pipeline.networks.classifier import Classifier
from pipeline.networks.encoders import build_encoder


def test_one_logit_per_threshold() -> None:
    network = Classifier(build_encoder("vgg16_bn"), classes=5, dropout=0.5).eval()
    assert network(torch.zeros(2, 1, 32, 64)).shape == (2, 4)


def test_the_head_is_the_papers() -> None:
    network = Classifier(build_encoder("resnet50"), classes=5, dropout=0.3)
    convolution, dropout, *_, fully_connected = network.head
    assert convolution.weight.shape[1:] == (2048, 1, 1)
    assert dropout.p == 0.3
    assert fully_connected.weight.shape == (4, convolution.weight.shape[0])


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    head = Classifier(build_encoder("vgg16_bn"), classes=3, dropout=0.5).head
    features = torch.randn(2, 512, 1, 2)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))
