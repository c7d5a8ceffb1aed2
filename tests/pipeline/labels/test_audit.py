"""Doubts about labels: wrong tags rank first, no person is on both sides of a fold, and what cannot be audited."""

import numpy as np
import pytest

from pipeline.labels import audit
from pipeline.labels.audit import doubts, out_of_fold
from pipeline.labels.pixel_features import pixel_features

PATIENTS, STUDIES_EACH, IMAGES_EACH = 40, 2, 3
WRONG = ("s3", "s22", "s57")


def stripes(across: bool, seed: int) -> np.ndarray:
    """Noise with stripes across or down the image, 64 x 96, of random width, position and bends."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :96].astype(float)
    along, position = (columns, rows) if across else (rows, columns)
    bends = sum(random.uniform(2, 6) * np.sin(along / random.uniform(5, 20) + random.uniform(0, 6)) for _ in range(2))
    waves = np.sin((position + bends) / random.uniform(1.5, 4) + random.uniform(0, 6))
    return np.clip(100 + 30 * waves + random.normal(0, 20, (64, 96)), 0, 255).astype(np.uint8)


class Pool:
    """Images of 80 studies of two kinds, in turn; label 0 is the kind and label 1 the other, wrong for WRONG."""

    def __init__(self) -> None:
        of = np.repeat(np.arange(PATIENTS * STUDIES_EACH), IMAGES_EACH)
        kind = of % 2
        self.features = np.stack([pixel_features(stripes(bool(one), seed)) for seed, one in enumerate(kind)])
        self.studies = [f"s{study}" for study in of]
        self.persons = [f"p{study // STUDIES_EACH}" for study in of]
        tagged = np.where(np.isin(self.studies, WRONG), 1 - kind, kind)
        self.labels = np.stack([tagged, 1 - tagged], 1).astype(float)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool()


def ranked(found: audit.Doubts) -> list[str]:
    return [found.studies[at] for at in np.argsort(-found.score, kind="stable")]


def test_studies_with_wrong_tags_come_first_and_alone_are_listed(pool: Pool) -> None:
    found = doubts(out_of_fold(pool.features, pool.labels, pool.persons), pool.labels, pool.studies)
    assert set(ranked(found)[:3]) == set(WRONG)
    assert {study for study, one in zip(found.studies, found.listed, strict=True) if one} == set(WRONG)
    at = found.studies.index("s3")  # tagged 0, though its stripes run across
    assert found.probability[at, 0] > 0.5 > found.probability[at, 1]
    assert (found.margin[at] > 0).all()


def test_pixels_that_do_not_belong_to_the_labels_find_nothing(pool: Pool) -> None:
    """The control: the same labels with the features of other images."""
    order = np.random.default_rng(0).permutation(len(pool.studies))
    found = doubts(out_of_fold(pool.features[order], pool.labels, pool.persons), pool.labels, pool.studies)
    assert len(set(ranked(found)[:20]) & set(WRONG)) <= 2


def test_no_model_sees_an_image_of_a_person_that_it_predicts(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image is marked by a feature of its person; the models record which marks they saw."""
    persons = np.array([int(person[1:]) for person in pool.persons])
    marked = persons[:, None].astype(np.float32)
    sides: list[tuple[set[int], set[int]]] = []

    class Spy:
        def __init__(self, **_: object) -> None: ...

        def fit(self, features: np.ndarray, _: np.ndarray) -> "Spy":
            self.seen = set(features.ravel().astype(int))
            return self

        def predict_proba(self, features: np.ndarray) -> np.ndarray:
            sides.append((self.seen, set(features.ravel().astype(int))))
            return np.full((len(features), 2), 0.5)

    class Same:
        def fit(self, _: np.ndarray) -> "Same":
            return self

        def transform(self, features: np.ndarray) -> np.ndarray:
            return features

    monkeypatch.setattr(audit, "LogisticRegression", Spy)
    monkeypatch.setattr(audit, "StandardScaler", Same)
    out_of_fold(marked, pool.labels[:, :1], pool.persons)
    assert len(sides) == 5 and all(not seen & unseen for seen, unseen in sides)
    assert set().union(*(unseen for _, unseen in sides)) == set(range(PATIENTS))


def test_unknown_labels_train_no_model_and_are_not_in_doubt(pool: Pool) -> None:
    """Without their labels, the studies of WRONG have no margin, whatever their pixels are."""
    labels = pool.labels.copy()
    labels[np.isin(pool.studies, WRONG)] = np.nan
    found = doubts(out_of_fold(pool.features, labels, pool.persons), labels, pool.studies)
    for study in WRONG:
        at = found.studies.index(study)
        assert np.isnan(found.margin[at]).all() and not found.listed[at] and found.score[at] == 0
    assert not found.listed.any()


def test_a_label_that_all_images_have_is_not_in_doubt(pool: Pool) -> None:
    labels = np.column_stack([pool.labels[:, 0], np.ones(len(pool.studies))])
    chances = out_of_fold(pool.features, labels, pool.persons)
    assert np.isnan(chances[:, 1]).all() and not np.isnan(chances[:, 0]).any()
    found = doubts(chances, labels, pool.studies)
    assert np.isnan(found.margin[:, 1]).all() and set(ranked(found)[:3]) == set(WRONG)


@pytest.mark.parametrize("images", [0, 6])
def test_images_of_one_person_or_none_cannot_be_audited(pool: Pool, images: int) -> None:
    labels, studies = pool.labels[:images], pool.studies[:images]
    chances = out_of_fold(pool.features[:images], labels, ["p"] * images)
    assert chances.shape == (images, 2) and np.isnan(chances).all()
    found = doubts(chances, labels, studies)
    assert found.studies == sorted(set(studies)) and not found.listed.any() and not found.score.any()


def test_no_label_gives_no_doubt(pool: Pool) -> None:
    labels = np.empty((len(pool.studies), 0))
    found = doubts(out_of_fold(pool.features, labels, pool.persons), labels, pool.studies)
    assert found.margin.shape == (80, 0) and not found.listed.any() and not found.score.any()


def test_margins_follow_the_thresholds_by_hand() -> None:
    """Three studies with the label and two without it; the log-odds of the two images of `a` have the mean 0."""
    chances = np.array([[0.8], [0.2], [0.9], [0.7], [0.3], [0.6]])
    labels = np.array([[1.0], [1], [1], [1], [0], [0]])
    found = doubts(chances, labels, ["a", "a", "b", "c", "d", "e"])
    with_it, without = (0.5 + 0.9 + 0.7) / 3, (0.7 + 0.4) / 2
    assert found.probability.ravel() == pytest.approx([0.5, 0.9, 0.7, 0.3, 0.6])
    expected = [(1 - p - without) - (p - with_it) for p in (0.5, 0.9, 0.7)]
    expected += [(p - with_it) - (1 - p - without) for p in (0.3, 0.6)]
    assert found.margin.ravel() == pytest.approx(expected)
    assert found.score == pytest.approx(np.clip(expected, 0, None))
    # `a` and `e` have a positive margin; 1 - 0.5 and 0.6 miss the thresholds 0.55 and 0.7.
    assert [margin > 0 for margin in expected] == [True, False, False, False, True] and not found.listed.any()


def test_a_study_with_both_tags_counts_by_the_more_doubtful() -> None:
    chances = np.array([[0.9], [0.9], [0.9], [0.2], [0.1]])
    found = doubts(chances, np.array([[1.0], [0], [1], [0], [0]]), ["a", "a", "b", "c", "d"])
    without = (0.1 + 0.8 + 0.9) / 3
    assert found.margin[0, 0] == pytest.approx((0.9 - 0.9) - (0.1 - without))
    assert found.studies[0] == "a" and found.listed.tolist() == [True, False, False, False]


def test_features_do_not_depend_on_the_size_and_tell_directions_textures_and_grey() -> None:
    rows = np.linspace(0, 200, 64)[:, None].repeat(96, 1)
    small, large = rows.astype(np.uint8), np.kron(rows, np.ones((2, 2))).astype(np.uint8)
    assert pixel_features(small).shape == (280,)
    assert np.abs(pixel_features(small) - pixel_features(large)).max() < 0.1
    down, across = pixel_features(small)[:192].reshape(8, 24), pixel_features(small.T.copy())[:192].reshape(8, 24)
    assert down.sum(1).argmax() == 4 and across.sum(1).argmax() == 0  # gradients at 90 and at 0 degrees
    flat = pixel_features(np.full((20, 30), 100, np.uint8))
    assert flat[192:264].tolist() == [0] * 72 and flat[264:].tolist() == [float(level == 6) for level in range(16)]
    noisy = pixel_features(np.random.default_rng(0).integers(0, 255, (64, 96), dtype=np.uint8))
    fine, middle, coarse = noisy[192:264].reshape(3, 24).mean(1)
    assert fine > middle > coarse > 0  # the variance of means of noise falls with their size
