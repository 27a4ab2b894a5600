from datetime import UTC, datetime

import pytest

from auth import second_factor

# RFC 6238, appendix B, SHA-1: the secret is "12345678901234567890"; its eight digits, without the first two.
SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
VECTORS = {
    59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037",
    20000000000: "353130",
}  # fmt: skip


@pytest.mark.parametrize(("seconds", "code"), VECTORS.items())
def test_the_codes_of_the_standard(seconds, code):
    assert second_factor.step_of(SECRET, code, datetime.fromtimestamp(seconds, UTC)) == seconds // 30


def test_a_code_is_good_a_step_early_or_late_and_no_longer():
    moment = 1111111109
    known = [
        second_factor.step_of(SECRET, VECTORS[moment], datetime.fromtimestamp(moment + 30 * steps, UTC))
        for steps in range(-2, 3)
    ]
    assert known == [None, moment // 30, moment // 30, moment // 30, None]


@pytest.mark.parametrize("code", ["", "28708", "2870822", "abcdef", "２８７０８２", "\x00", "🔑"])  # noqa: RUF001
def test_what_is_no_code_belongs_to_no_step(code):
    assert second_factor.step_of(SECRET, code, datetime.fromtimestamp(59, UTC)) is None


def test_recovery_codes_may_be_typed_as_one_likes():
    codes = second_factor.new_recovery_codes()
    assert len(set(codes)) == second_factor.RECOVERY_CODES
    for code in codes:
        assert len(code.replace("-", "")) == 16
        typed = code.upper().replace("-", " ")
        assert second_factor.digest_of(typed) == second_factor.digest_of(code)
    assert len({second_factor.digest_of(code) for code in codes}) == len(codes)


def test_a_secret_has_160_bits():
    assert len(second_factor.new_secret()) == 32
    assert second_factor.provisioning_url(SECRET, "a@example.com").startswith("otpauth://totp/Aragora:a%40example.com?")
