"""Pseudonyms, keys and draws."""

import hashlib
import hmac
import stat

import pytest

from pipeline.errors import UserError
from pipeline.privacy.identity import PUBLIC_DEMO_KEY, file_id, load_key, patient_draw, pseudonym


def test_pseudonym_is_the_first_half_of_an_hmac_sha256_over_kind_and_value():
    by_hand = hmac.new(b"secret key of mine", b"patient\x00Doe 42", hashlib.sha256).hexdigest()[:32]
    assert pseudonym(b"secret key of mine", "patient", "Doe 42") == by_hand


def test_equal_values_of_two_kinds_have_different_pseudonyms():
    assert len({pseudonym(b"k" * 16, kind, "1.2.3") for kind in ("patient", "study", "series", "sop_instance")}) == 4


def test_file_id_comes_from_the_hmac_of_the_relative_path():
    by_hand = hmac.new(b"k" * 16, b"file\x00a/b.dcm", hashlib.sha256).hexdigest()
    assert file_id(b"k" * 16, "a/b.dcm") == "f_" + by_hand[:16]


def test_a_key_is_made_once_and_readable_by_its_owner_alone(tmp_path):
    private = tmp_path / "private"
    key = load_key(private, {})
    assert load_key(private, {}) == key
    assert len(bytes.fromhex(key.decode())) == 32
    assert stat.S_IMODE((private / "pseudonym.key").stat().st_mode) == 0o600
    assert [path.name for path in private.iterdir()] == ["pseudonym.copy.key", "pseudonym.key"]


def test_the_environment_s_key_wins_and_writes_nothing(tmp_path):
    assert load_key(tmp_path, {"SONOTAG_PSEUDONYM_KEY": "sixteen bytes or more"}) == b"sixteen bytes or more"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("short", ["x", "fifteen-bytes-!"])
def test_a_short_key_is_refused_without_being_quoted(tmp_path, short):
    with pytest.raises(UserError) as error:
        load_key(tmp_path, {"SONOTAG_PSEUDONYM_KEY": short})
    assert "SONOTAG_PSEUDONYM_KEY" in str(error.value)
    assert short not in str(error.value).replace("bytes", "").split()
    (tmp_path / "pseudonym.key").write_text(short)
    with pytest.raises(UserError, match=r"pseudonym\.key"):
        load_key(tmp_path, {})


def test_the_public_key_is_long_enough():
    assert len(PUBLIC_DEMO_KEY) >= 16


def test_draws_are_uniform_between_0_and_1():
    draws = [patient_draw(f"P{number}") for number in range(2000)]
    assert min(draws) >= 0 and max(draws) < 1
    tenths = [sum(tenth / 10 <= draw < (tenth + 1) / 10 for draw in draws) for tenth in range(10)]
    assert all(150 < count < 250 for count in tenths)  # 200 expected, standard deviation 13
