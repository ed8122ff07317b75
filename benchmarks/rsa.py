"""What `cryptography` does in a bare loop on the core it is given; prints operations a second of processor time as JSON. usage: python -m benchmarks.rsa SECONDS"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

if TYPE_CHECKING:
    from collections.abc import Callable

_OAEP = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)


def rate(act: Callable[[], object], seconds: float) -> float:
    """How often something is done in a second of this process's time: what others do on the core meanwhile does not count."""
    done, start = 0, time.process_time()
    while (taken := time.process_time() - start) < seconds:
        for _ in range(20):
            act()
        done += 20
    return done / taken


def main(seconds: float) -> None:
    found = {}
    for bits in (2_048, 4_096):
        key = rsa.generate_private_key(65_537, bits)
        wrapped = key.public_key().encrypt(bytes(32), _OAEP)
        found[f"RSA-{bits}"] = rate(lambda key=key, wrapped=wrapped: key.decrypt(wrapped, _OAEP), seconds)  # type: ignore[misc]
    curve, digest = ec.generate_private_key(ec.SECP256R1()), bytes(32)
    algorithm = ec.ECDSA(Prehashed(SHA256()))
    found["P-256"] = rate(lambda: curve.sign(digest, algorithm), seconds)
    print(json.dumps(found))


if __name__ == "__main__":
    main(float(sys.argv[1]))
