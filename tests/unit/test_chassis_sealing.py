import pytest

from aragora.chassis.sealing import SealBroken, Sealer

OLD, NEW = "o" * 32, "n" * 40


def test_what_is_sealed_opens_and_cannot_be_read():
    sealer = Sealer(NEW, "auth")
    sealed = sealer.seal("JBSWY3DPEHPK3PXP")
    assert sealer.open(sealed) == "JBSWY3DPEHPK3PXP"
    assert b"JBSWY3DP" not in sealed
    assert sealer.seal("JBSWY3DPEHPK3PXP") != sealed


def test_a_new_key_in_front_opens_what_the_old_one_sealed():
    sealed, signature = Sealer(OLD, "auth").seal("x"), Sealer(OLD, "auth").sign("letter", "id")
    rotated = Sealer(f"{NEW}, {OLD}", "auth")
    assert rotated.open(sealed) == "x"
    assert rotated.signed("letter", "id", signature)
    assert rotated.sign("letter", "id") == Sealer(NEW, "auth").sign("letter", "id")


def test_without_the_key_nothing_opens():
    with pytest.raises(SealBroken, match="ARAGORA_SEALING_KEYS"):
        Sealer(NEW, "auth").open(Sealer(OLD, "auth").seal("x"))
    with pytest.raises(SealBroken):
        Sealer(NEW, "auth").open(Sealer(NEW, "auth").seal("x")[:-1] + b"?")


@pytest.mark.parametrize("signature", ["", "x", "\x00", "é", "🔑"])
def test_a_forged_signature_is_none(signature):
    assert not Sealer(NEW, "auth").signed("letter", "id", signature)


def test_a_signature_is_for_one_purpose_and_one_text():
    sealer = Sealer(NEW, "auth")
    signature = sealer.sign("letter", "id")
    assert sealer.signed("letter", "id", signature)
    assert not sealer.signed("other", "id", signature)
    assert not sealer.signed("letter", "ie", signature)
    assert sealer.digest("account", "a@example.com") != sealer.digest("address", "a@example.com")


@pytest.mark.parametrize("keys", ["", " , ", "short", f"{NEW},short"])
def test_a_bad_key_is_refused_with_what_to_do(keys):
    with pytest.raises(ValueError, match=r"ARAGORA_SEALING_KEYS .*openssl rand -hex 32"):
        Sealer(keys, "auth")


def test_another_service_with_the_same_keys_opens_nothing():
    with pytest.raises(SealBroken):
        Sealer(NEW, "notifier").open(Sealer(NEW, "auth").seal("x"))
    assert not Sealer(NEW, "notifier").signed("letter", "id", Sealer(NEW, "auth").sign("letter", "id"))
