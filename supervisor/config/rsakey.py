"""An RSA public key out of PEM text: PKCS#1 (``RSA PUBLIC KEY``) or SubjectPublicKeyInfo (``PUBLIC KEY``).

Only what a server's key needs is read: DER with definite lengths, an INTEGER pair. RFC 8017 A.1.1, RFC 5280 4.1.
"""

from __future__ import annotations

import base64
import binascii
import re

SEQUENCE, INTEGER, BIT_STRING = 0x30, 0x02, 0x03
RSA_ENCRYPTION = bytes.fromhex("06092a864886f70d010101")  # the algorithm's OID, 1.2.840.113549.1.1.1, as DER
BLOCK = re.compile(r"-----BEGIN ((?:RSA )?PUBLIC KEY)-----(.*?)-----END \1-----", re.DOTALL)


def public_numbers(pem: str) -> tuple[int, int]:
    """Return the key's (n, e).

    Raises:
        ValueError: there is no RSA public key in the text; the message says what is there instead.
    """
    block = BLOCK.search(pem)
    if block is None:
        if "PRIVATE KEY-----" in pem:
            raise ValueError("it holds a private key; the public one is wanted")
        raise ValueError("it holds no PEM block 'RSA PUBLIC KEY' or 'PUBLIC KEY'")
    try:
        der = base64.b64decode("".join(block[2].split()), validate=True)
    except binascii.Error:
        raise ValueError("its base64 is broken") from None
    return _pkcs1(_key_info(der) if block[1] == "PUBLIC KEY" else der)


def _key_info(der: bytes) -> bytes:
    """The PKCS#1 key inside SubjectPublicKeyInfo."""
    info, _ = _take(der, SEQUENCE)
    algorithm, rest = _take(info, SEQUENCE)
    if not algorithm.startswith(RSA_ENCRYPTION):
        raise ValueError("it is not an RSA key")
    bits, _ = _take(rest, BIT_STRING)
    if bits[:1] != b"\0":  # the count of unused bits
        raise ValueError("its DER is broken")
    return bits[1:]


def _pkcs1(der: bytes) -> tuple[int, int]:
    pair, _ = _take(der, SEQUENCE)
    first, rest = _take(pair, INTEGER)
    second, _ = _take(rest, INTEGER)
    n, e = int.from_bytes(first, signed=True), int.from_bytes(second, signed=True)
    if n <= 0 or n.bit_length() < 1024 or e < 3:
        raise ValueError("its numbers are not those of an RSA key of 1024 bits or more")
    return n, e


def _take(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Split one element off: (its content, what follows it)."""
    if len(der) < 2 or der[0] != tag:
        raise ValueError("its DER is broken")
    length, start = der[1], 2
    if length & 0x80:  # the long form: so many bytes of length follow
        start += length & 0x7F
        length = int.from_bytes(der[2:start])
    if len(der) < start + length:
        raise ValueError("its DER is broken")
    return der[start : start + length], der[start + length :]
