"""The certificate by which the notifier knows the mailbox: made at the first start, for 127.0.0.1 alone."""

import os
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

_GOOD_FOR = timedelta(days=3650)


def server_context(certificate: Path) -> ssl.SSLContext:
    """With which the mailbox speaks TLS. The key, beside the certificate, is for its owner only, and written first."""
    key = certificate.with_suffix(".key")
    if not certificate.exists():
        private = generate_private_key(SECP256R1())
        key.unlink(missing_ok=True)
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(
                private.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
        certificate.write_bytes(_signed_by_itself(private).public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


def _signed_by_itself(private: EllipticCurvePrivateKey) -> x509.Certificate:
    public, now = private.public_key(), datetime.now(UTC)
    begins_at, ends_at = now - timedelta(days=1), now + _GOOD_FOR
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Aragora mailbox")])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder(name, name, public, x509.random_serial_number(), begins_at, ends_at)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(private, SHA256())
    )
