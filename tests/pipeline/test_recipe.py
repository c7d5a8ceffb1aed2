"""Recipes: the shipped ones have the paper's settings, and a mistake is one sentence that names file and field."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.files import digest
from pipeline.methods import METHODS
from pipeline.recipe import Recipe, load_recipe, shipped_recipes
from pipeline.recipe.arms import encoder_of, is_frozen
from pipeline.recipe.reading import existing_file


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_paper_recipe_states_sections_3_and_4_and_table_a2() -> None:
    recipe = load_recipe("paper", {"SONOTAG_DOWNSTREAM": "/data"})
    settings, tasks = recipe.pretraining, recipe.downstream.tasks
    assert (recipe.images.height, recipe.images.width) == (256, 384)
    assert (settings.epochs, settings.batch_size, settings.betas) == (200, 32, (0.9, 0.999))
    assert (settings.learning_rate, settings.discriminator_learning_rate) == (1e-4, 1e-5)
    assert (settings.lambda_adv, settings.lambda_rec) == (0.001, 0.999)
    assert recipe.cohort.validation_share == 0.2
    assert recipe.labels.groups == (
        *("liver", "kidney", "thyroid", "abdomen", "chest", "soft tissue", "nodule", "drainage"),
    )
    table_a2 = {
        "quality": (4, 300, 0.00005, 0.00005),
        "liver_kidney": (8, 500, 0.0001, 0.00005),
        "thyroid": (8, 500, 0.0001, 0.0001),
    }
    assert {
        name: (t.batch_size, t.epochs, t.learning_rate["vgg16_bn"], t.learning_rate["resnet50"])
        for name, t in tasks.items()
    } == table_a2
    assert (recipe.evaluation.resamples, recipe.evaluation.resample_share) == (1000, 0.5)
    of_the_paper = {"baseline", "imagenet", "dcm", "ce", "ce_dcm", "ce_dcm_frozen"}
    assert set(recipe.downstream.arms) == of_the_paper | {"ce_frozen"}


def test_the_paper_compares_as_in_its_section_5_2_and_the_frozen_arms_with_each_other() -> None:
    """Figure 6: "CE+DCM+F when we use ResNet as backbone and CE+DCM when using VGG16", against CE."""
    paper = load_recipe("paper", {})
    assert [(c.arm, c.against, backbone) for c, backbone in paper.compared] == [
        ("ce_dcm_frozen", "ce", "resnet50"),
        ("ce_dcm", "ce", "vgg16_bn"),
        ("ce_dcm_frozen", "ce_frozen", "resnet50"),
    ]
    assert {"ce_frozen", "ce_dcm_frozen"} < set(paper.downstream.arms)
    assert paper.evaluation.test_resamples >= 20_000


def test_by_default_metadata_is_compared_with_none_if_both_are_trained() -> None:
    recipe = load_recipe("ct_mr", {})
    assert [(c.arm, c.against, backbone) for c, backbone in recipe.compared] == [("ce_dcm", "ce", "resnet50")]
    lacking = recipe.downstream.model_copy(update={"arms": ("baseline", "ce")})
    assert recipe.model_copy(update={"downstream": lacking}).compared == ()


def test_a_comparison_is_on_every_backbone_or_on_those_it_names() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "a",
            "pretraining": {"backbones": ["resnet50", "vgg16_bn"]},
            "evaluation": {
                "comparisons": [
                    {"arm": "ce", "against": "baseline"},
                    {"arm": "ce_dcm", "against": "ce", "backbones": ["vgg16_bn"]},
                    {"arm": "ce", "against": "ce_dcm", "backbones": ["resnet50"]},
                ]
            },
        }
    )
    assert [(c.arm, c.against, backbone) for c, backbone in recipe.compared] == [
        ("ce", "baseline", "resnet50"),
        ("ce", "baseline", "vgg16_bn"),
        ("ce_dcm", "ce", "vgg16_bn"),
        ("ce", "ce_dcm", "resnet50"),
    ]


def test_every_shipped_recipe_is_named_like_its_file() -> None:
    assert set(shipped_recipes()) >= {"demo", "paper", "ct_mr"}
    for name in shipped_recipes():
        assert load_recipe(name, {}).name == name


def task(fields: str) -> str:
    """A recipe with a task that is complete but for `fields`."""
    rest = "classes: [a, b], manifest: m.csv, epochs: 1, batch_size: 1, learning_rate: {vgg16_bn: 1, resnet50: 1}"
    return f"name: a\ndownstream: {{tasks: {{t: {{{fields}, {rest}}}}}}}"


def variant(fields: str, name: str = "v") -> str:
    """A recipe with a variant of those `fields`."""
    return f"name: a\npretraining: {{variants: {{{name}: {{{fields}}}}}}}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\npretraining: {epoch: 3}", r"mine\.yaml: pretraining\.epoch: "),
        ("name: a\nimages: {height: 60, width: 96}", r"images\.height: .*multiple of 32"),
        ("name: a\npretraining: {epochs: 0}", r"pretraining\.epochs: "),
        ("name: a\nevaluation: {test_resamples: 999}", r"evaluation\.test_resamples: .*20000"),
        (
            "name: a\nevaluation: {comparisons: [{arm: ce, against: ce}]}",
            r"evaluation\.comparisons\.0: ce ",
        ),
        (
            "name: a\nevaluation: {comparisons: [{arm: ce, against: dcm}, {arm: dcm, against: ce}]}",
            r"evaluation\.comparisons: (dcm and ce|ce and dcm) ",
        ),
        (
            "name: a\ndownstream: {arms: [ce]}\nevaluation: {comparisons: [{arm: ce_dcm, against: ce}]}",
            r"evaluation\.comparisons .*\bce_dcm\b.* downstream\.arms ",
        ),
        (
            "name: a\nevaluation: {comparisons: "
            "[{arm: ce, against: dcm}, {arm: dcm, against: ce, backbones: [resnet50]}]}",
            r"evaluation\.comparisons: dcm and ce ",
        ),
        (
            "name: a\npretraining: {backbones: [resnet50]}\n"
            "evaluation: {comparisons: [{arm: ce_dcm, against: ce, backbones: [vgg16_bn]}]}",
            r"evaluation\.comparisons .*\bvgg16_bn\b.* pretraining\.backbones ",
        ),
        (
            "name: a\nevaluation: {comparisons: [{arm: ce_dcm, against: ce, backbones: []}]}",
            r"evaluation\.comparisons\.0\.backbones: ",
        ),
        (
            "name: a\nevaluation: {comparisons: [{arm: ce_dcm, against: ce, backbones: [resnet50, resnet50]}]}",
            r"evaluation\.comparisons\.0\.backbones: \w+ ",
        ),
        (
            "name: a\ndownstream: {arms: [other_frozen]}",
            r"downstream\.arms .*\bother_frozen\b.* pretraining\.methods nor ",
        ),
        (variant("method: ce, epochs: 2", "mine_frozen"), r"pretraining: variants: mine_frozen "),
        (variant("method: ce, epochs: 2", "ce_frozen"), r"ce_frozen is already the name of an arm"),
        ("name: a b", "name: "),
        (
            "name: a\narchive: {descriptions: [StudyDescription, PatientName]}",
            r"archive\.descriptions\.1: 'PatientName' is none of StudyDescription, RequestedProcedureDescription, "
            "ProcedureCodeSequence, PerformedProcedureStepDescription, SeriesDescription, ProtocolName, "
            "AnatomicRegionSequence, BodyPartExamined",
        ),
        ("name: a\narchive: {descriptions: [ProtocolName, ProtocolName]}", r"archive\.descriptions: ProtocolName "),
        ("name: a\narchive: {descriptions: []}", r"archive\.descriptions: "),
        ("name: a\narchive: {descriptions: SeriesDescription}", r"archive\.descriptions: "),
        ("images: {height: 64, width: 96}", "name: Field required"),
        ("name: a\nlabels: {sources: []}", "labels: sources is empty"),
        (
            "name: a\nlabels: {sources: [{kind: tags}]}",
            r"labels\.sources\.0: .*'study_groups', 'probe', 'values', 'bins'",
        ),
        (
            "name: a\nlabels: {sources: [{kind: values, field: ProtocolName, labels: {a: [A]}}]}",
            r"labels\.sources\.0\.values\.field: 'ProtocolName' is none of Modality, BodyPartExamined, ",
        ),
        (
            "name: a\nlabels: {sources: [{kind: bins, field: BodyPartExamined, edges: [1], labels: [a, b]}]}",
            r"labels\.sources\.0\.bins\.field: 'BodyPartExamined' is none of SliceThickness, KVP, ",
        ),
        (
            "name: a\nlabels: {sources: [{kind: bins, field: KVP, edges: [2, 2], labels: [a, b, c]}]}",
            r"labels\.sources\.0\.bins: edges ",
        ),
        (
            "name: a\nlabels: {sources: [{kind: bins, field: KVP, edges: [1, 2], labels: [a, b]}]}",
            r"labels\.sources\.0\.bins: labels .*\b3\b.*\b2\b",
        ),
        (
            "name: a\nlabels: {sources: [{kind: bins, field: KVP, edges: [.inf], labels: [a, b]}]}",
            r"labels\.sources\.0\.bins\.edges\.0: ",
        ),
        (
            "name: a\nlabels: {sources: [{kind: study_groups}, {kind: values, field: Modality, labels: {chest: [X]}}]}",
            r"labels: .*\bchest\b",
        ),
        (
            "name: a\nlabels: {sources: [{kind: values, field: Modality, labels: {frame: [US]}}]}",
            r"labels: .*\bframe\b",
        ),
        (
            "name: a\nlabels: {sources: [{kind: values, field: Modality, labels: {'a, b': [US]}}]}",
            r"labels\.sources\.0\.values\.labels\.a, b",
        ),
        (
            "name: a\nlabels: {sources: [{kind: values, field: Modality, labels: {a: [' ']}}]}",
            r"labels\.sources\.0\.values\.labels\.a\.0: ",
        ),
        ("name: a\nlabels: {groups: [liver]}", r"labels\.groups: "),
        ("name: a\narchive: {modalities: [ultrasound]}", r"archive\.modalities\.0: "),
        ("name: a\narchive: {modalities: []}", r"archive\.modalities: "),
        ("name: [", "is not readable YAML"),
        ("- 1", "mine.yaml: "),
        (
            task("kind: ordinal, champion: {metric: dice}"),
            r"downstream\.tasks\.t: .*metric dice .*accuracy",
        ),
        (task("kind: segmentation, champion: {metric: accuracy}"), r"champion\.metric accuracy .*dice, iou"),
        (
            task("kind: ordinal, champion: {metric: accuracy, decided_by: test}"),
            r"downstream\.tasks\.t\.champion\.decided_by: .*'validation'",
        ),
        ("name: a\npretraining: {methods: [ce]}", "downstream.arms names baseline, imagenet, dcm, ce_dcm"),
        ("name: a\ndownstream: {arms: [ce_dmc]}", r"downstream\.arms .*\bce_dmc\b"),
        (variant("method: ce_dcm"), r"pretraining\.variants\.v: .*\bce_dcm\b"),
        (variant("method: baseline, epochs: 3"), r"pretraining\.variants\.v: epochs .*\bbaseline\b"),
        (variant("method: imagenet, labels: source"), r"pretraining\.variants\.v: labels .*\bimagenet\b"),
        (variant("method: ce, labels: shuffled"), r"pretraining\.variants\.v: labels .*\bce\b"),
        (variant("method: dcm, lambda_adv: 0.1"), r"pretraining\.variants\.v: lambda_adv .*\bdcm\b"),
        (variant("method: ce, lambda_adv: -1"), r"pretraining\.variants\.v\.lambda_adv: "),
        (variant("method: ce, batch_size: 8"), r"pretraining\.variants\.v\.batch_size: "),
        (variant("method: ce, lambda_adv: 0.001"), r"pretraining: variants\.v: lambda_adv .*0\.001"),
        (variant("method: ce, discriminator_batch_norm: true"), r"v: discriminator_batch_norm .*\bon\b"),
        (variant("method: dcm, discriminator_batch_norm: false"), r"discriminator_batch_norm .*\bdcm\b"),
        (variant("method: dcm, adversarial_share: 0.3"), r"adversarial_share .*\bdcm\b"),
        (variant("method: ce, adversarial_share: 0"), r"pretraining\.variants\.v\.adversarial_share: "),
        (variant("method: ce, discriminator_spectral_norm: false"), r"v: discriminator_spectral_norm .*\boff\b"),
        (variant("method: ce_dcm, label_share: 0.5"), r"label_share .*\bce_dcm\b"),
        (variant("method: ce_dcm, labels: none"), r"pretraining\.variants\.v\.labels: "),
        (variant("method: ce_dcm, labels: source", "ce_dcm_frozen"), "ce_dcm_frozen is already the name of an arm"),
        (variant("method: ce_dcm, labels: source", "dcm"), "dcm is already the name of an arm"),
        (variant("method: ce_dcm, labels: source", "A b"), r"pretraining\.variants"),
        ("name: a\npretraining: {seeds: []}", r"pretraining\.seeds: "),
        ("name: a\npretraining: {seeds: [1, 1]}", r"pretraining\.seeds: 1 "),
        ("name: a\npretraining: {seeds: [-1]}", r"pretraining\.seeds\.0: "),
        ("name: a\ndownstream: {arms: [ce, dcm, ce]}", r"downstream\.arms: ce "),
        ("name: a\ndownstream: {fractions: [0.5, 0.50]}", r"downstream\.fractions: 0\.5 "),
        ("name: a\npretraining: {backbones: [resnet50, resnet50]}", r"backbones: resnet50 "),
        ("name: a\npretraining: {backbones: [convnext_tiny.fb_in1k]}", r"backbones\.0: .*'convnext_tiny'"),
        ("name: a\npretraining: {backbones: [ResNet50]}", r"backbones\.0: 'ResNet50' is no architecture"),
        ("name: a\npretraining: {backbones: [../resnet50]}", r"pretraining\.backbones\.0: "),
        (
            "name: a\npretraining: {backbones: [resnet50, resnet50_gn], variants: {gn_ce: {method: ce, epochs: 3}}}",
            "pretraining: resnet50_gn_ce would be the encoder of two backbones",
        ),
        ("name: a\npretraining: {methods: [ce, ce]}", r"pretraining\.methods: ce "),
        ("name: a\ndownstream: {seeds: [2, 2]}", r"downstream\.seeds: 2 "),
        ("name: a\npretraining: {seed: 1}", r"pretraining\.seed: "),
        (
            task("kind: ordinal") + "\npretraining: {seeds: [0, 1]}",
            r"downstream\.seeds has 1 .* 2 in pretraining\.seeds",
        ),
        (task("kind: ordinal, min_steps: -1"), r"downstream\.tasks\.t\.min_steps: "),
        (
            "name: a\npretraining: {backbones: [resnet50]}\ndownstream: {tasks: {t: {kind: ordinal, classes: [a, b], "
            "manifest: t.csv, epochs: 1, batch_size: 4, learning_rate: {vgg16_bn: 0.1}}}}",
            r"downstream\.tasks\.t\.learning_rate lacks resnet50",
        ),
    ],
)
def test_a_mistake_in_a_recipe_raises_a_one_sentence_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        load_recipe(write(tmp_path, text), {})
    assert "\n" not in str(caught.value)


def test_without_label_sources_labels_are_the_paper_s_groups_and_probes(tmp_path: Path) -> None:
    paper = ("liver", "kidney", "thyroid", "abdomen", "chest", "soft tissue", "nodule", "drainage")
    labels = load_recipe(write(tmp_path, "name: a"), {}).labels
    assert labels.names == (*paper, "linear", "curvilinear") and labels.groups == paper
    said = "name: a\nlabels: {sources: [{kind: study_groups}, {kind: probe}]}"
    assert load_recipe(write(tmp_path, said), {}).labels == labels


def test_paths_start_at_the_recipe_and_variables_come_from_the_environment(tmp_path: Path) -> None:
    text = "name: a\ndownstream: {tasks: {t: {kind: ordinal, classes: [a, b], manifest: %s, epochs: 1, batch_size: 4, "
    text += "learning_rate: {vgg16_bn: 0.1, resnet50: 0.1}}}}"
    beside = load_recipe(write(tmp_path, text % "sets/t.csv"), {})
    assert beside.downstream.tasks["t"].manifest == str(tmp_path / "sets" / "t.csv")
    named = load_recipe(write(tmp_path, text % '"${HERE}/t.csv"'), {"HERE": "/data"})
    assert named.downstream.tasks["t"].manifest == "/data/t.csv"
    unset = load_recipe(write(tmp_path, text % '"${HERE}/t.csv"'), {})
    with pytest.raises(UserError, match=r"\bHERE\b"):
        existing_file(unset.downstream.tasks["t"].manifest, "Task t: manifest")


def test_the_champion_is_decided_by_validation_images_in_the_metric_of_its_kind() -> None:
    tasks = load_recipe("paper", {"SONOTAG_DOWNSTREAM": "/d"}).downstream.tasks
    assert {name: t.champion_metric for name, t in tasks.items()} == {
        "quality": "accuracy",
        "liver_kidney": "dice",
        "thyroid": "dice",
    }
    assert {t.champion.decided_by for t in tasks.values() if t.champion} == {"validation"}
    unsaid = tasks["thyroid"].model_copy(update={"champion": None})
    assert unsaid.champion_metric == "dice"


def test_a_recipe_without_later_settings_is_recorded_as_before_them(tmp_path: Path) -> None:
    """The digest was computed by commit 317985c: reports and finished encoders of such recipes stay valid."""
    text = """
name: a
pretraining:
  variants:
    quiet: {method: ce, lambda_adv: 0, discriminator_batch_norm: false}
    mixed: {method: dcm, labels: shuffled}
"""
    recorded = load_recipe(write(tmp_path, text), {}).shared["pretraining"]
    assert digest(recorded) == "bd2a9be71fec7ef3f0f47293a6ce8fd07db5d91447672a309e22623b0d385d71"
    later = "spectral: {method: ce, adversarial_share: 0.3, discriminator_spectral_norm: true}"
    recorded = load_recipe(write(tmp_path, f"{text}    {later}"), {}).shared
    assert Recipe.model_validate(recorded).pretraining.variants["spectral"].settings == {
        "adversarial_share": 0.3,
        "discriminator_spectral_norm": True,
    }


def test_a_source_is_left_out_by_number_of_a_method_that_trains(tmp_path: Path) -> None:
    text = "name: a\npretraining:\n  variants:\n    away: {{method: {}}}\n"
    recipe = load_recipe(write(tmp_path, text.format("ce, without_source: 3")), {})
    settings = recipe.pretraining
    assert [settings.left_out_of(name) for name in ("ce", "away")] == [None, 3]
    assert settings.settings_of("away", 0) == settings.settings_of("ce", 0), "the source is no setting"
    assert recipe.shared["pretraining"]["variants"]["away"]["without_source"] == 3
    for wrong in ("ce, without_source: 0", "ce, without_source: Anna", "ce", "baseline, without_source: 1"):
        with pytest.raises(UserError, match=r"variants\.away"):
            load_recipe(write(tmp_path, text.format(wrong)), {})


def test_leaving_one_source_out_is_recorded_only_if_chosen(tmp_path: Path) -> None:
    plain = load_recipe(write(tmp_path, "name: a"), {})
    chosen = load_recipe(write(tmp_path, "name: a\nevaluation: {leave_one_source_out: true}"), {})
    assert chosen.shared["evaluation"] == plain.shared["evaluation"] | {"leave_one_source_out": True}
    assert "leave_one_source_out" not in plain.shared["evaluation"]


VARIANTS = """
name: a
pretraining:
  backbones: [resnet50]
  methods: [ce_dcm]
  epochs: 7
  seeds: [5, 9]
  variants:
    other: {method: ce_dcm, labels: shuffled}
    alone: {method: ce, lambda_adv: 0, epochs: 2}
downstream:
  arms: [ce_dcm, ce_dcm_frozen, other, alone]
  seeds: [0, 1, 2, 3]
evaluation: {comparisons: [{arm: ce_dcm, against: other}]}
"""


def test_a_variant_is_an_encoder_with_settings_of_its_own_and_an_arm(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, VARIANTS), {})
    settings = recipe.pretraining
    assert settings.encoders == settings.context_encoders == ("ce_dcm", "other", "alone")
    assert [settings.method_of(name).name for name in settings.encoders] == ["ce_dcm", "ce_dcm", "ce"]
    assert [settings.labels_of(name) for name in settings.encoders] == ["own", "shuffled", "own"]
    plain, changed = settings.settings_of("ce_dcm", 5), settings.settings_of("alone", 9)
    assert (plain.seed, plain.epochs, plain.lambda_adv) == (5, 7, 0.001)
    assert (changed.seed, changed.epochs, changed.lambda_adv, changed.lambda_rec) == (9, 2, 0.0, 0.999)
    assert settings.settings_of("other", 5) == plain, "its labels are no setting"
    assert [(c.arm, c.against) for c in recipe.comparisons] == [("ce_dcm", "other")]


def test_fine_tuning_seeds_take_the_pretraining_seeds_in_turn(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, VARIANTS), {})
    assert [recipe.pretraining_seed(seed) for seed in recipe.downstream.seeds] == [5, 9, 5, 9]
    alone = load_recipe(write(tmp_path, VARIANTS.replace("[5, 9]", "[5]")), {})
    assert [alone.pretraining_seed(seed) for seed in alone.downstream.seeds] == [5, 5, 5, 5]


@pytest.mark.parametrize(
    ("least", "images", "passes"),
    [
        (0, 18, 1),
        (240, 375, 1),  # 46 steps a pass: six epochs are 276
        (240, 18, 20),  # 2 steps a pass: six epochs are 240
        (240, 94, 4),  # 11 steps a pass: three passes and six epochs are 198
        (240, 8, 40),
    ],
)
@pytest.mark.parametrize("key", ["min_steps", "least_steps"])
def test_an_epoch_goes_through_few_images_several_times(
    tmp_path: Path, key: str, least: int, images: int, passes: int
) -> None:
    """By hand, in batches of 8 and six epochs; `least_steps` is the key of earlier versions."""
    text = task(f"kind: ordinal, {key}: {least}").replace("epochs: 1", "epochs: 6")
    one = load_recipe(write(tmp_path, text.replace("batch_size: 1", "batch_size: 8")), {}).downstream.tasks["t"]
    assert one.epoch_repeats(images) == passes
    used = {"kind", "classes", "epochs", "batch_size", "learning_rate", "dropout", "augmentation"}
    assert set(one.training) == used | ({"least_steps"} if least else set()), "finished models keep their fingerprint"
    assert one.training.get("least_steps", 0) == least


def test_the_real_recipe_declares_its_arms_seeds_and_comparisons() -> None:
    recipe = load_recipe("real", {"SONOTAG_DOWNSTREAM": "/data"})
    assert (recipe.images.height, recipe.images.width) == (64, 96)
    assert [recipe.pretraining_seed(seed) for seed in recipe.downstream.seeds] == [0, 1, 2]
    assert set(recipe.downstream.arms) == {*recipe.pretraining.encoders, "ce_dcm_frozen"}
    assert [(c.arm, c.against) for c in recipe.comparisons] == [
        *(("ce_dcm", "ce"), ("ce_dcm", "baseline"), ("ce_dcm", "dcm")),
        *(("ce_dcm", "ce_dcm_shuffled"), ("ce_dcm", "ce_dcm_source")),
    ]
    assert recipe.pretraining.settings_of("ce_unopposed", 2).lambda_adv == 0
    assert {t.epochs * t.epoch_repeats(19) * (19 // t.batch_size) for t in recipe.downstream.tasks.values()} == {240}


def test_a_frozen_arm_starts_from_the_encoder_of_its_name() -> None:
    arms = ("ce_dcm_frozen", "ce_frozen", "baseline_frozen", "mine_frozen", "ce")
    assert [encoder_of(arm) for arm in arms] == ["ce_dcm", "ce", "baseline", "mine", "ce"]
    assert [is_frozen(arm) for arm in arms] == [True] * 4 + [False]


def test_any_encoder_of_the_recipe_can_be_an_arm_that_is_frozen() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "a",
            "pretraining": {"methods": ["ce"], "variants": {"mine": {"method": "ce", "epochs": 2}}},
            "downstream": {"arms": ["ce", "ce_frozen", "mine_frozen"]},
        }
    )
    assert recipe.downstream.arms == ("ce", "ce_frozen", "mine_frozen")


def test_scores_are_settings_of_every_method_that_trains_and_recorded_only_if_chosen(tmp_path: Path) -> None:
    plain = load_recipe(write(tmp_path, "name: mine"))
    chosen = load_recipe(
        write(tmp_path, "name: mine\npretraining: {score_every: 2, select_by: linear_auc, patience: 3}")
    )
    for name, method in METHODS.items():
        if method.trains:
            settings = chosen.pretraining.settings_of(name, 0).model_dump()
            assert [settings[setting] for setting in ("score_every", "select_by", "patience")] == [
                2,
                "linear_auc",
                3,
            ], name
    scores = {"score_every", "select_by", "patience"}
    assert not scores & plain.shared["pretraining"].keys() and scores <= chosen.shared["pretraining"].keys()
    with pytest.raises(UserError, match=r"mine.yaml.*pretraining\.select_by"):
        load_recipe(write(tmp_path, "name: mine\npretraining: {select_by: accuracy}"))
