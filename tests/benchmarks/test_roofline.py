import pytest
import torch
from torch import nn

from benchmarks.plain_pretraining import Discriminator, Generator
from benchmarks.roofline import Layer, LayerRecorder, Machine, Peaks, least_seconds, operations, step_layers


def recorded(layer, x):
    """The layers of one forward and backward pass through `layer`, on the meta device."""
    recorder = LayerRecorder()
    with recorder:
        y = layer(x)
        with recorder.backward():
            y.backward(torch.empty_like(y))
    return recorder.layers


def image(*shape, gradient=True):
    return torch.empty(*shape, device="meta", requires_grad=gradient)


def test_a_convolution_by_hand():
    layer = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False, device="meta")
    forward, backward = recorded(layer, image(2, 3, 8, 10))
    products = 2 * 8 * (4 * 5) * (3 * 3 * 3)  # images, output channels, output pixels, inputs of each
    floats = {"x": 2 * 3 * 80, "y": 2 * 8 * 20, "weight": 8 * 27}
    assert forward == Layer("convolution", "forward", 2 * products, 4 * sum(floats.values()))
    read_and_written = floats["y"] + 2 * floats["x"] + 2 * floats["weight"]
    assert backward == Layer("convolution", "backward", 2 * 2 * products, 4 * read_and_written)


def test_the_first_layer_needs_no_gradient_of_the_image():
    layer = nn.Conv2d(1, 4, 3, padding=1, bias=False, device="meta")
    forward, backward = recorded(layer, image(2, 1, 8, 8, gradient=False))
    assert backward.operations == forward.operations == 2 * (2 * 4 * 64 * 9)
    assert backward.bytes == 4 * (2 * 4 * 64 + 2 * 64 + 4 * 9 + 4 * 9)


def test_an_up_convolution_multiplies_once_per_input_pixel():
    layer = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, bias=False, device="meta")
    forward, backward = recorded(layer, image(2, 6, 2, 3))
    assert forward.operations == 2 * (2 * 6 * 2 * 3) * (4 * 9)
    assert backward.operations == 2 * forward.operations
    assert forward.bytes == 4 * (2 * 6 * 6 + 6 * 4 * 9 + 2 * 4 * 24)


def test_grey_repeated_to_three_channels_is_read_once():
    layer = nn.Conv2d(3, 1, 1, bias=False, device="meta")
    forward, _ = recorded(layer, image(2, 1, 4, 4, gradient=False).expand(-1, 3, -1, -1))
    assert forward.operations == 2 * 2 * 16 * 3
    assert forward.bytes == 4 * (2 * 16 + 3 + 2 * 16)


def test_batch_norm_and_relu_only_move_bytes():
    block = nn.Sequential(nn.BatchNorm2d(4, device="meta"), nn.ReLU(inplace=True))
    norm, relu, relu_back, norm_back = recorded(block, image(2, 4, 8, 8))
    plane, channels = 4 * (2 * 4 * 64), 4 * 4
    assert norm == Layer("batch norm", "forward", 0, 2 * plane + 6 * channels)  # weight, bias, 2 running, 2 of batch
    assert relu == Layer("activation", "forward", 0, 2 * plane)
    assert relu_back == Layer("activation", "backward", 0, 3 * plane)
    assert norm_back.bytes == 3 * plane + 7 * channels  # weight, 2 running, 2 of the batch; 2 gradients


def test_the_indices_of_a_pooling_are_not_counted():
    forward, backward = recorded(nn.MaxPool2d(2), image(1, 1, 8, 8))
    assert (forward.kind, forward.bytes, backward.bytes) == ("pooling", 4 * (64 + 16), 4 * (16 + 64 + 64))


def test_half_the_bytes_in_bfloat16():
    """But for the statistics of a batch norm, which stay float32."""
    both = (step_layers("resnet50", 3, 2, 32, 32, dtype) for dtype in (torch.float32, torch.bfloat16))
    float32, bfloat16 = ([layer for layer in layers if layer.kind != "batch norm"] for layers in both)
    assert operations(float32) == operations(bfloat16)
    assert [layer.bytes for layer in float32] == [2 * layer.bytes for layer in bfloat16]


def test_the_longer_of_arithmetic_and_traffic_counts():
    machine = Machine(operations=100.0, bytes=10.0)
    arithmetic, traffic = Layer("convolution", "forward", 1000, 50), Layer("activation", "forward", 0, 30)
    assert [machine.bound_by_bytes(layer) for layer in (arithmetic, traffic)] == [False, True]
    assert least_seconds([arithmetic, traffic], machine) == 10.0 + 3.0


def test_a_device_is_as_fast_as_its_fastest_product():
    rates = {("mm", torch.float32): 5.0, ("convolution", torch.float32): 7.0, ("mm", torch.bfloat16): 9.0}
    assert Peaks(rates, 2.0).machine(torch.float32) == Machine(7.0, 2.0)


def forward_operations(network, *inputs):
    """Of every convolution and fully connected layer, in order, from the shapes alone."""
    counts = []

    def note(layer, args, y):
        x = args[0]
        per_pixel = 2 * layer.weight.numel()
        if isinstance(layer, nn.ConvTranspose2d):
            counts.append(per_pixel * x.shape[0] * x.shape[2] * x.shape[3])
        elif isinstance(layer, nn.Conv2d):
            counts.append(per_pixel * y.shape[0] * y.shape[2] * y.shape[3])
        else:
            counts.append(per_pixel * x.shape[0])

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.register_forward_hook(note)
    network(*inputs)
    return counts


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16_bn"])
def test_a_step_does_no_pass_twice(backbone):
    batch, labels, height, width = 2, 10, 64, 96
    with torch.device("meta"):
        of_f = forward_operations(Generator(backbone), image(batch, 1, height, width))
        patch = image(batch, 1, height // 2, width // 2)
        *of_d, classifier, projection = forward_operations(Discriminator(labels), patch, image(batch, labels))
    head = classifier + projection
    layers = step_layers(backbone, labels, batch, height, width)
    forward = operations(layer for layer in layers if layer.direction == "forward")
    assert forward == sum(of_f) + 3 * (sum(of_d) + head)
    f = 2 * sum(of_f) - of_f[0]  # no gradient of the image
    own_step = 2 * (2 * sum(of_d) - of_d[0]) + 2 * (2 * classifier + projection)  # real and inpainted; none of labels
    in_step_of_f = sum(of_d) + classifier  # no gradients of D's weights
    assert operations(layers) - forward == f + own_step + in_step_of_f


def test_the_paper_sized_features_are_counted_per_image():
    """Four times the sides' product, sixteen times the convolutions' work: 256×384 against 64×96."""
    small, large = (step_layers("vgg16_bn", 10, 1, *size) for size in ((64, 96), (256, 384)))
    of_convolutions = [
        sum(layer.operations for layer in layers if layer.kind == "convolution") for layers in (small, large)
    ]
    assert of_convolutions[1] == 16 * of_convolutions[0]
