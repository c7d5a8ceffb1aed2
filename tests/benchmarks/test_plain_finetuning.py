import pytest
import torch

from benchmarks.finetuning import Case, our_training
from benchmarks.plain_finetuning import BATCH, SHIFT, Augmented, PlainClassifier, PlainFineTuning, PlainUNet, moved
from pipeline.images.batches import AugmentationParameters
from pipeline.recipe import load_recipe
from pipeline.settings import Augmentation

CPU = torch.device("cpu")
CASES = [Case(kind, backbone, 32, 64, 3) for kind in BATCH for backbone in ("resnet50", "vgg16_bn")]


def plain_twin(ours, case):
    """The plain loop with the weights of the project's; both compute in float64, without dropout."""
    network = (PlainClassifier if case.kind == "ordinal" else PlainUNet)(
        case.backbone, 5 if case.kind == "ordinal" else 2
    )
    theirs, mine = network.state_dict(), ours.network.state_dict()
    if case.kind == "segmentation":  # the project's blocks hold an up-convolution and a mix each
        order = [name for name in mine if not name.startswith("up_blocks")]
        head = order.index("head.weight")
        ups = [name for name in mine if name.startswith("up_blocks") and ".up." in name]
        mixes = [name for name in mine if name.startswith("up_blocks") and ".mix." in name]
        mine = {name: mine[name] for name in (*order[:head], *ups, *mixes, *order[head:])}
    for theirs_own, my_own in zip(theirs.values(), mine.values(), strict=True):
        assert theirs_own.shape == my_own.shape
        theirs_own.copy_(my_own)
    for each in (network, ours.network):
        each.double()
        for layer in each.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
    weights = ours.objective._weights.double() if case.kind == "ordinal" else None
    return PlainFineTuning(network, weights, CPU)


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.backbone}")
def test_the_projects_steps_are_those_of_the_plain_loop(case):
    torch.manual_seed(0)
    ours = our_training(case)
    plain = plain_twin(ours, case)
    plain.network.train()
    for images, answers in ours.batches(1, 0):
        x_N1HW, targets = images.double(), answers.double() if case.kind == "ordinal" else answers
        assert ours.step((x_N1HW, targets)).item() == pytest.approx(plain.step(x_N1HW, targets), rel=1e-6)


def test_a_frozen_backbone_of_the_plain_loop_stays_as_it_is_and_the_rest_learns():
    network = PlainUNet("resnet50", 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batch = torch.randn(2, 1, 32, 64), torch.ones(2, 32, 64, dtype=torch.uint8)
    PlainFineTuning(network, None, CPU, frozen=True).epoch([batch])
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name for name in before if not name.startswith("backbone")} == changed


def test_the_plain_loop_moves_an_image_as_the_project_does():
    image = torch.arange(1, 25, dtype=torch.uint8).view(4, 6)
    for flip, down, right in [(False, 0, 0), (True, 1, -2), (False, -3, 0), (True, 0, 5)]:
        one = AugmentationParameters(torch.tensor([flip]), torch.tensor([down]), torch.tensor([right]))
        assert torch.equal(moved(image, flip, down, right), one.apply(image[None])[0])


def test_the_plain_loop_moves_masks_with_their_images():
    grey = torch.randint(1, 256, (20, 16, 24), dtype=torch.uint8)
    for image, mask in Augmented(grey, (grey > 127).to(torch.uint8), mean=0.0, sd=1.0):
        assert torch.equal(image[0] > 127, mask == 1)


def test_batches_and_shifts_are_those_of_the_recipes():
    assert Augmentation().shift == SHIFT
    for task in load_recipe("paper").downstream.tasks.values():
        assert task.batch_size == BATCH[task.kind]
