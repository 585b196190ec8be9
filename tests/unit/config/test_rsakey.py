import base64
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config.rsakey import RSA_ENCRYPTION, public_numbers
from tests.unit.config.files import RSA_PKCS1


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content).to_bytes(3).lstrip(b"\0")
    length = bytes([len(content)]) if len(content) < 128 else bytes([0x80 | len(size)]) + size
    return bytes([tag]) + length + content


def integer(number: int) -> bytes:
    return der(2, number.to_bytes(number.bit_length() // 8 + 1, signed=True))


def pem(label: str, content: bytes) -> str:
    body = "\n".join(textwrap.wrap(base64.b64encode(content).decode(), 64))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"


def pkcs1(n: int, e: int) -> bytes:
    return der(0x30, integer(n), integer(e))


def key_info(key: bytes, oid: bytes = RSA_ENCRYPTION) -> bytes:
    return der(0x30, der(0x30, oid, b"\x05\0"), der(3, b"\0" + key))


@given(st.integers(1 << 1023, 1 << 4096), st.sampled_from([3, 17, 65537]))
def test_both_forms(n: int, e: int) -> None:
    """PKCS#1 and SubjectPublicKeyInfo give the same numbers, whatever stands around the block."""
    key = pkcs1(n, e)
    assert public_numbers(pem("RSA PUBLIC KEY", key)) == (n, e)
    assert public_numbers("a comment\n" + pem("PUBLIC KEY", key_info(key)) + "\nmore").__eq__((n, e))


def test_a_real_key() -> None:
    """A key of Telegram's is read."""
    n, e = public_numbers(RSA_PKCS1)
    assert (n.bit_length(), n % 2, e) == (2048, 1, 65537)


GOOD = pkcs1((1 << 2047) + 1, 65537)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it holds no PEM block 'RSA PUBLIC KEY' or 'PUBLIC KEY'"),
        (pem("CERTIFICATE", b"x"), "it holds no PEM block 'RSA PUBLIC KEY' or 'PUBLIC KEY'"),
        (pem("RSA PRIVATE KEY", b"x"), "it holds a private key; the public one is wanted"),
        (pem("PRIVATE KEY", b"x"), "it holds a private key; the public one is wanted"),
        ("-----BEGIN PUBLIC KEY-----\n?\n-----END PUBLIC KEY-----", "its base64 is broken"),
        (pem("RSA PUBLIC KEY", GOOD[:-9]), "its DER is broken"),
        (pem("RSA PUBLIC KEY", b""), "its DER is broken"),
        (pem("PUBLIC KEY", GOOD), "its DER is broken"),
        (pem("RSA PUBLIC KEY", key_info(GOOD)), "its DER is broken"),
        (pem("PUBLIC KEY", der(0x30, der(0x30, RSA_ENCRYPTION), der(3, b"\1" + GOOD))), "its DER is broken"),
        (pem("PUBLIC KEY", key_info(GOOD, bytes.fromhex("06072a8648ce3d0201"))), "it is not an RSA key"),
        (
            pem("RSA PUBLIC KEY", pkcs1(12345, 3)),
            "its numbers are not those of an RSA key of 1024 bits or more",
        ),
    ],
)
def test_wrong(text: str, problem: str) -> None:
    """What is no RSA public key is said to be what it is."""
    with pytest.raises(ValueError) as error:
        public_numbers(text)
    assert str(error.value) == problem


@given(st.binary(max_size=40))
def test_any_der(content: bytes) -> None:
    """No bytes raise anything but ValueError."""
    for label in ("RSA PUBLIC KEY", "PUBLIC KEY"):
        with pytest.raises(ValueError):
            public_numbers(pem(label, content))
