"""Where the sender goes and where it does not, and that an attempt ends whatever the other side does."""

import asyncio
import datetime as dt
import ssl
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from webhook_receiver import Manner, Receiver, receiver

from notifier.destinations import ForbiddenUrl, check_destination
from notifier.sending import ATTEMPT_SECONDS, Answer, Sender

HERE = (ip_network("127.0.0.1/32"),)


class Names:
    """A resolver that finds what it is told to, and another thing the next time."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def post(url: str, *, names: Names | None = None, guarded: bool = True, **sender: object) -> Answer:
    async with Sender(HERE, resolver=names, **sender) as sending:  # type: ignore[arg-type]
        return await sending.post(url, "{}", {"webhook-id": "msg_1"}, guarded=guarded)


async def test_an_allowed_address_is_called(hook: Receiver):
    answer = await post(hook.url)
    assert (answer.status_code, answer.text, answer.failure) == (200, "thanks", None)
    assert hook.requests[0].headers["host"] == hook.url.split("/")[2]
    assert hook.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost.example", "[::1]", "169.254.169.254", "2130706433", "0x7f.2"])
async def test_an_address_that_is_not_allowed_is_never_connected_to(host: str, hook: Receiver):
    port = hook.url.rpartition(":")[2]
    answer = await post(f"http://{host}:{port}", names=Names(["127.0.0.2"]))
    assert answer.status_code is None
    assert answer.failure
    assert hook.connections == 0


async def test_a_name_that_leads_elsewhere_later_leads_nowhere():
    async with receiver(host="127.0.0.1") as ours, receiver(host="127.0.0.2") as victim:
        port = victim.url.split(":")[2].split("/")[0]
        url = f"http://rebound.example:{port}/hook"
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        await check_destination(url, HERE, names)
        answer = await post(url, names=names)
        assert names.asked == 2
        assert "not on the public internet" in str(answer.failure)
        assert (ours.connections, victim.connections) == (0, 0)


async def test_one_look_up_serves_judgement_and_connection(hook: Receiver):
    url = hook.url.replace("127.0.0.1", "hooks.example")
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    answer = await post(url, names=names)
    assert answer.failure is None
    assert names.asked == 1


async def test_of_two_addresses_the_second_is_tried_when_the_first_is_away(hook: Receiver):
    networks = (ip_network("127.0.0.0/8"),)
    url = hook.url.replace("127.0.0.1", "hooks.example")
    async with Sender(networks, resolver=Names(["127.0.0.3", "127.0.0.1"])) as sending:
        assert (await sending.post(url, "{}", {}, guarded=True)).failure is None


async def test_a_redirection_is_not_followed(hook: Receiver):
    async with receiver(host="127.0.0.1") as other:
        hook.status, hook.headers = 307, {"Location": other.url}
        answer = await post(hook.url)
    assert (answer.status_code, answer.failure) == (307, "answered with 307: redirections are not followed")
    assert other.connections == 0


async def test_the_operators_own_endpoint_is_not_vetted():
    async with receiver(host="127.0.0.2") as own:
        assert (await post(own.url, guarded=False)).failure is None
        assert (await post(own.url)).failure is not None
        assert len(own.requests) == 1


@pytest.mark.parametrize(
    ("manner", "failure"),
    [
        ("hang", "no answer within 1 s"), ("drip", "no answer within 1 s"),
        ("close", "the connection was cut, or the answer was no HTTP"),
        ("garbage", "the connection was cut, or the answer was no HTTP"), ("endless", None), ("never_close", None),
        ("early_hints", "the connection was cut, or the answer was no HTTP"),
    ],
)  # fmt: skip
async def test_an_attempt_ends_whatever_the_other_side_does(
    manner: Manner, failure: str | None, hook: Receiver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("notifier.sending.READ_SECONDS", 0.2)
    hook.manner = manner
    attempt_seconds = 1.0 if failure == "no answer within 1 s" else ATTEMPT_SECONDS
    answer = await asyncio.wait_for(post(hook.url, attempt_seconds=attempt_seconds), 5)
    assert answer.failure == failure
    assert answer.milliseconds < 2000
    assert len(answer.text or "") <= 1024


async def test_what_comes_back_can_be_stored(hook: Receiver):
    hook.status, hook.body = 500, b"\x00\xff" + "ä🎉".encode() * 5000
    hook.headers = {"Retry-After": "9" * 5000}
    answer = await post(hook.url)
    assert answer.text is not None
    assert answer.text.startswith("\ufffd\ufffdä🎉")
    assert len(answer.text) == 1024
    assert answer.text.encode()
    assert answer.retry_after == "9" * 100
    assert answer.failure == "answered with 500"


async def test_nobody_listens():
    async with receiver() as gone:
        url = gone.url
    assert (await post(url)).failure == "no connection could be made"
    assert (await post("https://nobody.example/", names=Names([]))).failure == "the name of the host is not known"


async def test_tls_verifies_the_name_and_not_the_address(tmp_path: Path):
    serving, trusting = certificate("hooks.example", tmp_path)
    async with receiver(tls=serving) as hook:
        port = hook.url.split(":")[2]
        right, wrong = f"https://hooks.example:{port}", f"https://other.example:{port}"
        names = Names(["127.0.0.1"])
        assert (await post(right, names=names, tls=trusting)).failure is None
        mismatch = await post(wrong, names=names, tls=trusting)
        assert str(mismatch.failure).startswith("the certificate is not valid: Hostname mismatch")
        stranger = await post(right, names=names)
        assert str(stranger.failure).startswith("the certificate is not valid")
    assert len(hook.requests) == 1


async def test_a_url_is_judged_before_anything_is_looked_up():
    names = Names(["127.0.0.1"])
    with pytest.raises(ForbiddenUrl):
        await check_destination("https://user:secret@hooks.example/", HERE, names)
    assert (await post("ftp://hooks.example/", names=names)).failure == "begin the URL with https://"
    assert names.asked == 0


def certificate(host: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for the host, and one that believes it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    return serving, ssl.create_default_context(cadata=signed.public_bytes(serialization.Encoding.PEM).decode())
