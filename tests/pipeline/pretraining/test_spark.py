"""Training on masked patches: masks, the error of a patch, steps and validation of spark and spark_aux.

Not here: sparse layers and which backbones can be masked (test_sparse.py), the label loss's share
(test_gradient_share.py, test_auxiliary_labels.py), files and resuming (test_pretrain.py).
"""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.images.batches import Normalization, fit_normalization
from pipeline.images.loader import ResidentLoader
from pipeline.methods import METHODS
from pipeline.networks.encoders import build_encoder, load_encoder
from pipeline.networks.hierarchical_decoder import HierarchicalDecoder
from pipeline.networks.sparse import VisibleCells, sparse
from pipeline.pretraining.controls import with_label_variant
from pipeline.pretraining.encoder_folder import read_curves
from pipeline.pretraining.labelled_step import TRAIN_METRICS
from pipeline.pretraining.masked_patches import MaskedBatches, draw_visible, patch_errors, patch_side
from pipeline.pretraining.metadata_classifier import MetadataHead
from pipeline.pretraining.pretrain import fingerprint_of, pretrain
from pipeline.pretraining.spark import Spark, SparkAuxTraining, SparkTraining
from pipeline.progress import silent
from pipeline.recipe import Recipe
from pipeline.training.seeds import generator, seeded
from tests.pipeline.pretraining.conftest import LABELS, TinyEncoder, make_pool, relabelled, settings_of

CPU = torch.device("cpu")
SPARK = ("spark", "spark_aux")
pytestmark = pytest.mark.usefixtures("narrow_decoder")


def training(method, pool, settings, normalization=None):
    with seeded(0, "test"):
        encoder = TinyEncoder()
        network = Spark(encoder, HierarchicalDecoder(encoder))
        if method == "spark_aux":
            network.head = MetadataHead(8, len(pool.label_names))
    kind = SparkAuxTraining if method == "spark_aux" else SparkTraining
    normalization = normalization or fit_normalization(pool.images, pool.train)
    return kind(network, pool, normalization, settings_of(method, settings))


def errors_by_hand(decoded, x, cells):
    """The error of each image, patch by patch, in NumPy."""
    side = x.shape[2] // cells.shape[1]
    means = []
    for image in range(len(x)):
        errors = []
        for row, column in np.argwhere(~cells[image]):
            at = np.s_[image, 0, row * side : (row + 1) * side, column * side : (column + 1) * side]
            target = (x[at] - x[at].mean()) / np.sqrt(x[at].var(ddof=1) + 1e-6)
            errors.append(((decoded[at] - target) ** 2).mean())
        means.append(np.mean(errors))
    return np.array(means)


class TestMasks:
    """Which patches are visible."""

    @pytest.mark.parametrize(
        ("size", "side", "patches"),
        [((256, 384), 32, 96), ((224, 224), 32, 49), ((128, 192), 16, 96), ((64, 96), 8, 96), ((32, 32), 8, 16)],
    )
    def test_the_side_of_a_patch_follows_from_the_size_of_the_image(self, settings, size, side, patches):
        assert patch_side(settings, *size) == side
        assert size[0] * size[1] / side**2 == patches

    def test_a_recipe_may_set_it_unless_an_image_is_one_patch(self, settings):
        large = settings.model_copy(update={"mask_patch": 32})
        assert patch_side(large, 32, 64) == 32
        with pytest.raises(UserError, match=r"pretraining\.mask_patch is 32, .* 32 x 32 pixels"):
            patch_side(large, 32, 32)

    @pytest.mark.parametrize(
        ("grid", "ratio", "visible"),
        [((8, 12), 0.6, 38), ((7, 7), 0.6, 20), ((2, 3), 0.6, 2), ((1, 2), 0.01, 1), ((1, 2), 0.99, 1)],
    )
    def test_equally_many_patches_of_each_image_are_visible(self, grid, ratio, visible):
        cells = draw_visible(50, *grid, ratio, generator(0, "test"))
        assert cells.shape == (50, *grid)
        assert cells.sum(dim=(1, 2)).tolist() == [visible] * 50
        assert len({tuple(one.flatten().tolist()) for one in cells}) > 1

    def test_every_patch_is_equally_often_visible(self):
        share = draw_visible(20_000, 2, 3, 0.6, generator(0, "test")).double().mean(dim=0)
        np.testing.assert_allclose(share, 2 / 6, atol=0.015)

    def test_masks_differ_from_epoch_to_epoch_and_depend_on_the_seed_alone(self, pool, settings):
        def drawn(epoch, first_step=0, **changes):
            own = settings_of("spark", settings.model_copy(update=changes))
            batches = MaskedBatches(Normalization(60.0, 40.0), own).training(pool, epoch, first_step)
            return [batch.visible.cells_Nhw.tolist() for batch in batches]

        assert drawn(1) == drawn(1)
        assert drawn(1)[2:] == drawn(1, first_step=2)
        assert len({str(one) for one in (drawn(1), drawn(2), drawn(1, seed=1))}) == 3


class TestError:
    """The loss of given pictures."""

    def test_it_is_that_of_hidden_patches_each_normalized_by_itself(self):
        x, decoded = torch.randn(3, 1, 16, 32) * 2 + 1, torch.randn(3, 1, 16, 32)
        cells = draw_visible(3, 2, 4, 0.6, generator(0, "test"))
        found = patch_errors(decoded, x, VisibleCells(cells, CPU))
        np.testing.assert_allclose(found, errors_by_hand(decoded.numpy(), x.numpy(), cells.numpy()), rtol=1e-4)

    def test_visible_patches_of_the_picture_do_not_count(self):
        cells = draw_visible(3, 2, 4, 0.6, generator(0, "test"))
        visible, x = VisibleCells(cells, CPU), torch.randn(3, 1, 16, 32)
        decoded = torch.randn(3, 1, 16, 32)
        other = torch.where(visible.at(16, 32), 9.0, decoded)
        assert torch.equal(patch_errors(decoded, x, visible), patch_errors(other, x, visible))

    def test_a_patch_of_one_grey_level_is_inpainted_by_zeros(self):
        visible = VisibleCells(draw_visible(2, 2, 2, 0.5, generator(0, "test")), CPU)
        black = torch.full((2, 1, 16, 16), -1.2345)
        assert patch_errors(torch.zeros(2, 1, 16, 16), black, visible).abs().max() < 1e-6


class TestSteps:
    """Steps and validation."""

    @pytest.mark.parametrize("method", SPARK)
    def test_hidden_pixels_have_no_effect_on_what_is_decoded(self, pool, settings, method):
        one = training(method, pool, settings)
        batch = next(one.batches(1, 0))
        x = batch.images.x_N1HW
        other = torch.where(batch.visible.at(*x.shape[2:]), x, torch.randn_like(x))
        assert not torch.equal(x, other)
        for image, logits in zip(one.network(x, batch.visible), one.network(other, batch.visible), strict=True):
            assert image is logits is None or torch.equal(image, logits)

    def test_a_steps_loss_is_the_mean_error(self, pool, settings):
        one = training("spark", pool, settings)
        batch = next(one.batches(1, 0))
        decoded = deepcopy(one.network)(batch.images.x_N1HW, batch.visible)[0].detach().numpy()
        expected = errors_by_hand(decoded, batch.images.x_N1HW.numpy(), batch.visible.cells_Nhw.numpy()).mean()
        assert one.step(batch).tolist() == [pytest.approx(expected, rel=1e-4)]

    @pytest.mark.parametrize("method", SPARK)
    def test_the_gradient_reaches_every_weight(self, settings, method):
        """Also the deepest token, as every second position of the deepest features is hidden."""
        one = training(method, make_pool(width=64), settings.model_copy(update={"mask_patch": 32}))
        for batch in one.batches(1, 0):
            one.step(batch)
        for name, parameter in one.network.named_parameters():
            optimizer = one.trained.optimizers["network"]
            moved = optimizer.state[parameter]["exp_avg"].abs().max()
            assert moved > 0, name

    def test_the_label_loss_is_that_of_the_mean_visible_feature(self, pool, settings):
        one = training("spark_aux", pool, settings)
        batch = next(one.batches(1, 0))
        network, x = deepcopy(one.network), batch.images.x_N1HW
        with torch.no_grad(), sparse(network.encoder, batch.visible):
            deepest = network.encoder(x).double().numpy()
        assert deepest.shape[2:] == (1, 1), "one visible position"
        classifier = network.head.classifier
        logits = deepest[:, :, 0, 0] @ classifier.weight.detach().double().numpy().T
        logits += classifier.bias.detach().double().numpy()
        labels, known = batch.images.labels_NL.numpy(), batch.images.known_NL.numpy()
        each = np.logaddexp(0, logits) - logits * labels
        decoded = deepcopy(one.network)(x, batch.visible)[0].detach().numpy()
        error = errors_by_hand(decoded, x.numpy(), batch.visible.cells_Nhw.numpy()).mean()
        metrics = dict(zip(TRAIN_METRICS, one.step(batch).tolist(), strict=True))
        assert metrics["train_label_loss"] == pytest.approx(each[known].mean(), rel=1e-4)
        assert metrics["train_reconstruction"] == pytest.approx(error, rel=1e-4)
        weighted = error + metrics["train_label_weight"] * each[known].mean()
        assert metrics["train_loss"] == pytest.approx(weighted, rel=1e-4)
        assert metrics["train_label_share"] > 0

    def test_measuring_the_share_changes_no_running_statistics(self, pool, settings):
        one = training("spark_aux", pool, settings)
        batch = next(one.batches(1, 0))
        before = {name: tensor.clone() for name, tensor in one.network.state_dict().items()}
        one.labelled.measured(lambda network: one._losses(network, batch))
        assert all(torch.equal(tensor, before[name]) for name, tensor in one.network.state_dict().items())

    @pytest.mark.parametrize("method", SPARK)
    def test_validation_is_the_mean_error_of_all_images_under_fixed_masks(self, settings, method):
        pool = make_pool(count=18, train=12)
        one = training(method, pool, settings)
        metrics = one.validate()
        assert one.validate() == metrics, "and leaves no trace"
        errors, cells = [], []
        for batch in one._masked.validation(pool):
            with torch.no_grad():
                decoded = one.network(batch.images.x_N1HW, batch.visible)[0].numpy()
            cells.append(batch.visible.cells_Nhw.numpy())
            errors.append(errors_by_hand(decoded, batch.images.x_N1HW.numpy(), cells[-1]))
        assert [len(batch) for batch in errors] == [4, 2]
        assert metrics[one.selected_by] == pytest.approx(np.concatenate(errors).mean(), rel=1e-5)
        expected = {"val_loss"} | ({"val_patch_error", "val_label_loss", "val_accuracy"} if "aux" in method else set())
        assert metrics.keys() == expected
        if method == "spark_aux":
            assert metrics["val_loss"] == pytest.approx(metrics["val_patch_error"] + metrics["val_label_loss"])

    def test_the_report_is_of_all_validation_images(self, pool, settings):
        pool.known_NL[13, 0] = False
        rows = training("spark_aux", pool, settings).report(pool)
        assert [(row["label"], row["images"]) for row in rows] == list(zip(LABELS, (3, 4, 4), strict=True))

    @pytest.mark.parametrize("method", SPARK)
    def test_a_pool_of_black_images_has_a_finite_loss(self, pool, settings, method):
        black = replace(pool, images=ResidentLoader(torch.zeros(16, 32, 32, dtype=torch.uint8)))
        one = training(method, black, settings, Normalization(50.0, 40.0))
        rows = [one.step(batch) for batch in one.batches(1, 0)]
        assert torch.stack(rows).isfinite().all() and np.isfinite(list(one.validate().values())).all()

    def test_the_control_of_the_error_is_a_patch_of_its_own_mean(self, pool, settings):
        one, errors = training("spark", pool, settings), []
        for batch in one._masked.validation(pool):
            x = batch.images.x_N1HW.numpy()
            errors.append(errors_by_hand(np.zeros_like(x), x, batch.visible.cells_Nhw.numpy()))
        assert one.error_of_means(pool) == pytest.approx(np.concatenate(errors).mean(), rel=1e-4)

    @pytest.mark.integration
    def test_training_lowers_the_loss(self, pool, settings):
        one = training("spark", pool, settings.model_copy(update={"learning_rate": 0.01}))
        losses = [torch.cat([one.step(batch) for batch in one.batches(epoch, 0)]).mean().item() for epoch in range(20)]
        assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


class TestControls:
    """What shuffled labels and sources do to spark_aux."""

    def losses(self, method, pool, settings):
        one = training(method, pool, settings)
        return one.step(next(one.batches(1, 0))).tolist()

    @pytest.mark.parametrize("shown", ["shuffled", "source"])
    def test_spark_aux_alone_is_shown_the_labels_of_the_control(self, pool, settings, shown):
        assert shown in METHODS["spark_aux"].controls and not METHODS["spark"].controls
        control = with_label_variant(shown, pool, 2, lambda: [b"a", b"b"] * 8)
        assert self.losses("spark_aux", control, settings) != self.losses("spark_aux", pool, settings)
        assert self.losses("spark", control, settings) == self.losses("spark", pool, settings)

    def test_both_begin_with_the_same_error(self, pool, settings):
        """The untagged twin: the same images, masks and initial weights."""
        (first,), labelled = self.losses("spark", pool, settings), self.losses("spark_aux", pool, settings)
        assert labelled[TRAIN_METRICS.index("train_reconstruction")] == first


class TestRecipe:
    """The settings, as a recipe has them."""

    def recipe(self, **pretraining):
        return Recipe.model_validate(
            {
                "name": "a",
                "pretraining": {"backbones": ["resnet50"], "methods": ["spark", "spark_aux"]} | pretraining,
                "downstream": {"arms": ["spark", "spark_aux"]},
            }
        )

    @pytest.mark.parametrize(
        ("field", "value"), [("mask_ratio", 0), ("mask_ratio", 1), ("mask_patch", 12), ("mask_patch", 64)]
    )
    def test_a_mask_that_hides_nothing_or_all_or_fits_no_stride_is_refused(self, field, value):
        with pytest.raises(ValueError, match=field):
            self.recipe(**{field: value})

    def test_a_variant_may_change_them_and_the_share_of_the_labels(self):
        pretraining = self.recipe(
            variants={
                "coarse": {"method": "spark", "mask_patch": 16},
                "control": {"method": "spark_aux", "labels": "shuffled"},
                "loud": {"method": "spark_aux", "label_share": 0.3, "mask_ratio": 0.75},
            }
        ).pretraining
        assert pretraining.settings_of("coarse", 0).mask_patch == 16
        loud = pretraining.settings_of("loud", 0)
        assert (loud.label_share, loud.mask_ratio, loud.mask_patch) == (0.3, 0.75, None)
        with pytest.raises(ValueError, match="label_share is not a setting of spark"):
            self.recipe(variants={"a": {"method": "spark", "label_share": 0.3}})

    @pytest.mark.parametrize(
        ("field", "value", "methods"),
        [
            ("mask_ratio", 0.5, set(SPARK)),
            ("mask_patch", 16, set(SPARK)),
            ("label_share", 0.3, {"spark_aux", "ce_aux"}),
            ("epochs", 4, {*SPARK, "ce_aux", "dcm"}),
        ],
    )
    def test_a_setting_counts_for_the_methods_that_use_it(self, pool, settings, field, value, methods):
        def of(method, settings):
            return fingerprint_of("resnet50", method, pool, settings_of(method, settings))

        changed = settings.model_copy(update={field: value})
        assert {m for m in (*SPARK, "ce_aux", "dcm") if of(m, settings) != of(m, changed)} == methods

    def test_labels_count_for_spark_aux_alone(self, pool, settings):
        def of(method, pool):
            return fingerprint_of("resnet50", method, pool, settings_of(method, settings))

        assert {method for method in SPARK if of(method, pool) != of(method, relabelled(pool))} == {"spark_aux"}


@pytest.mark.usefixtures("tiny_backbone")
@pytest.mark.integration
@pytest.mark.parametrize("method", SPARK)
def test_an_encoder_fills_a_folder_as_every_other(tmp_path, pool, settings, method):
    own = settings_of(method, settings).model_copy(update={"epochs": 1})
    assert pretrain("resnet50", method, pool, own, tmp_path, silent, lambda *_: None).status == "ran"
    assert set(METHODS[method].curve_titles) <= set(read_curves(tmp_path))
    card = (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert METHODS[method].card in card and "- mask_ratio: 0.6" in card
    assert "- hidden patches, validation error: " in card and "- hidden patches, error of their own means: " in card


@pytest.mark.usefixtures("tiny_backbone")
def test_small_images_are_refused_before_anything_is_trained(tmp_path, pool, settings):
    own = settings_of("spark", settings).model_copy(update={"mask_patch": 32})
    with pytest.raises(UserError, match="mask_patch"):
        pretrain("resnet50", "spark", pool, own, tmp_path, silent, lambda *_: None)


@pytest.mark.integration
def test_a_backbone_with_squeeze_and_excitation_is_refused(tmp_path, pool, settings):
    with pytest.raises(UserError, match="efficientnet_b0 cannot be trained on masked images"):
        pretrain("efficientnet_b0", "spark", pool, settings_of("spark", settings), tmp_path, silent, lambda *_: None)


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_tiny", "vgg16_bn"])
@pytest.mark.integration
def test_backbones_are_trained_in_bfloat16_and_saved_as_the_dense_network(tmp_path, settings, backbone):
    pool = make_pool(count=6, train=4, height=64, width=96)
    own = settings_of("spark_aux", settings).model_copy(update={"epochs": 1, "precision": "bfloat16"})
    heard = []
    pretrain(backbone, "spark_aux", pool, own, tmp_path, silent, lambda epoch, metrics: heard.append(metrics))
    assert np.isfinite(list(heard[0].values())).all()
    assert (tmp_path / "encoder.onnx").is_file()
    loaded, fresh = load_encoder(backbone, tmp_path / "encoder.safetensors").state_dict(), build_encoder(backbone)
    assert loaded.keys() == fresh.state_dict().keys()
    for name, before in fresh.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            assert loaded[name].isfinite().all() and not torch.equal(loaded[name], before), name
