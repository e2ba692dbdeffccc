"""What protects secrets at rest."""

import base64

import pytest

from tidemill.exception import DataLossError, ServiceError
from tidemill_registry.cipher import Encrypted, Keyring, new_key, read_keys

VALUES = {"TOKEN": "the value", "ÜMLAUT": "ß"}


def ring(*keys: bytes) -> Keyring:
    return Keyring(keys)


ONE, OTHER = b"1" * 32, b"2" * 32


def test_what_was_encrypted_can_be_read() -> None:
    assert ring(ONE).decrypt("st-1", ring(ONE).encrypt("st-1", VALUES)) == VALUES


def test_a_ciphertext_tells_nothing() -> None:
    first, second = ring(ONE).encrypt("st-1", VALUES), ring(ONE).encrypt("st-1", VALUES)
    assert first.ciphertext != second.ciphertext
    assert b"value" not in first.ciphertext
    assert ONE.hex() not in first.key_id


def test_a_ciphertext_can_be_read_only_in_its_own_row() -> None:
    with pytest.raises(DataLossError, match="was changed"):
        ring(ONE).decrypt("st-2", ring(ONE).encrypt("st-1", VALUES))


@pytest.mark.parametrize("broken", [b"", b"short", b"x" * 100])
def test_a_broken_ciphertext_is_told_as_such(broken: bytes) -> None:
    with pytest.raises(DataLossError, match="was changed"):
        ring(ONE).decrypt("st-1", Encrypted(ring(ONE).first, broken))


def test_another_key_reads_nothing_and_says_which_one_would() -> None:
    stored = ring(ONE).encrypt("st-1", VALUES)
    with pytest.raises(ServiceError, match=stored.key_id) as caught:
        ring(OTHER).decrypt("st-1", stored)
    assert "nothing is lost" in caught.value.hint


def test_the_first_key_encrypts_and_all_of_them_decrypt() -> None:
    old = ring(ONE).encrypt("st-1", VALUES)
    both = ring(OTHER, ONE)
    assert both.decrypt("st-1", old) == VALUES
    assert both.encrypt("st-1", VALUES).key_id == ring(OTHER).first != old.key_id


def test_without_a_key_nothing_is_encrypted() -> None:
    with pytest.raises(ServiceError, match="no key") as caught:
        ring().encrypt("st-1", VALUES)
    assert "TIDEMILL_SECRETS_KEY" in caught.value.hint


def test_equal_values_of_one_environment_have_one_fingerprint_under_one_key() -> None:
    reordered = dict(reversed(VALUES.items()))
    fingerprint = ring(ONE).fingerprint("en-1", VALUES)
    assert ring(ONE).fingerprint("en-1", reordered) == fingerprint
    others = (
        ring(ONE).fingerprint("en-2", VALUES),
        ring(OTHER).fingerprint("en-1", VALUES),
        ring(ONE).fingerprint("en-1", VALUES | {"TOKEN": "another"}),
    )
    assert fingerprint not in others


def test_keys_are_read_as_they_are_made() -> None:
    first, second = new_key(), new_key()
    assert len(read_keys(f"{first},{second}\n")) == 2
    assert read_keys("") == ()
    assert len(read_keys(new_key())[0]) == 32


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not base64!", "key 1 is not base64"),
        (base64.b64encode(b"too short").decode(), "key 1 has 9 bytes"),
        (f"{base64.b64encode(ONE).decode()} c2hvcnQ=", "key 2 has 5 bytes"),
    ],
)
def test_what_is_no_key_is_refused_without_repeating_it(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_keys(text)
    assert text.rsplit(maxsplit=1)[-1] not in str(caught.value)
