"""Sealing and opening objects, beside the limit and beside other libraries on the same buffers.

usage: seal_open.py [--json] [--runs N]

- *limit*: AES-256-GCM of the OpenSSL that Keystead uses, in a bare loop with one nonce on a reused buffer: nothing else can be faster here.
- *keystead*: a whole sealed object into a reused buffer, with a fresh nonce from the operating system and a context built for each.
- *tink* (envelope encryption, its own key for each object) and *aws-encryption-sdk* (raw AES keyring, committing suite without signature), where installed
  (`requirements/bench.lock`).

Every figure is the median of several runs; the runs of all candidates are interleaved, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keystead.core.formats import sealed_object
from keystead.core.formats.aead import Aes
from keystead.core.formats.context import object_context
from keystead.core.secret import SecretKey

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024
TARGETS = {16 * KIB: 0.4, 64 * KIB: 0.7, 1024 * KIB: 0.85}
"""Size of an object in bytes, and the least share of the limit (issue 2)."""
BYTES_PER_RUN = 32 * 1024 * KIB
TENANT, KEY_ID, OBJECT = (f"00000000-0000-4000-8000-00000000000{digit}" for digit in range(3))


class Candidate(NamedTuple):
    """One way to seal and open the same bytes. `slow`: takes milliseconds a call, so that fewer calls make a run."""

    name: str
    seal: Callable[[], object]
    open: Callable[[], object]
    slow: bool = False


def limit(data: bytes) -> Candidate:
    cipher, nonce = AESGCM(os.urandom(32)), os.urandom(12)
    box, out = memoryview(bytearray(len(data) + 16)), memoryview(bytearray(len(data)))
    cipher.encrypt_into(nonce, data, b"", box)
    return Candidate("limit", lambda: cipher.encrypt_into(nonce, data, b"", box), lambda: cipher.decrypt_into(nonce, box, b"", out))


def keystead(data: bytes) -> Candidate:
    key = Aes(SecretKey(os.urandom(32)))
    box, out = memoryview(bytearray(len(data) + sealed_object.OVERHEAD_BYTES)), memoryview(bytearray(len(data)))

    def seal() -> int:
        bound = object_context(TENANT, "item", OBJECT, 0, last=True)
        return sealed_object.seal_into(box, key, data, key_id=KEY_ID, key_version=1, context=bound, nonce=os.urandom(12))

    def open_() -> int:
        bound = object_context(TENANT, "item", OBJECT, 0, last=True)
        return sealed_object.open_into(out, key, box, key_id=KEY_ID, key_version=1, context=bound, object_name=OBJECT)

    seal()
    open_()
    assert out == data
    return Candidate("keystead", seal, open_)


def tink(data: bytes) -> Candidate:
    library: Any = import_module("tink")
    aead: Any = import_module("tink.aead")
    aead.register()
    template = aead.aead_key_templates.AES256_GCM
    kek = library.new_keyset_handle(template).primitive(aead.Aead)
    cipher = aead.KmsEnvelopeAead(template, kek)
    box = cipher.encrypt(data, b"context")
    return Candidate("tink", lambda: cipher.encrypt(data, b"context"), lambda: cipher.decrypt(box, b"context"))


def aws_encryption_sdk(data: bytes) -> Candidate:
    sdk: Any = import_module("aws_encryption_sdk")
    identifiers: Any = import_module("aws_encryption_sdk.identifiers")
    providers: Any = import_module("aws_cryptographic_material_providers.mpl")
    config: Any = import_module("aws_cryptographic_material_providers.mpl.config")
    models: Any = import_module("aws_cryptographic_material_providers.mpl.models")
    keyring = providers.AwsCryptographicMaterialProviders(config=config.MaterialProvidersConfig()).create_raw_aes_keyring(
        input=models.CreateRawAesKeyringInput(
            key_namespace="bench",
            key_name="kek",
            wrapping_key=os.urandom(32),
            wrapping_alg=models.AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16,
        )
    )
    client = sdk.EncryptionSDKClient(commitment_policy=identifiers.CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    algorithm = identifiers.AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY

    def seal() -> bytes:
        box: bytes = client.encrypt(source=data, keyring=keyring, algorithm=algorithm, frame_length=len(data))[0]
        return box

    box = seal()
    return Candidate("aws-encryption-sdk", seal, lambda: client.decrypt(source=box, keyring=keyring), slow=True)


def candidates(data: bytes) -> list[Candidate]:
    """Those whose libraries are installed; limit and Keystead first."""
    others = [tink(data)] if find_spec("tink") else []
    if find_spec("aws_encryption_sdk"):
        others.append(aws_encryption_sdk(data))
    return [limit(data), keystead(data), *others]


def megabytes_per_second(act: Callable[[], object], size: int, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        act()
    return size * calls / 1e6 / (time.perf_counter() - start)


def measure(size: int, runs: int) -> dict[str, Any]:
    """Medians in MB/s of all candidates for one size, and Keystead's share of the limit."""
    ways = candidates(os.urandom(size))
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(runs):
        for way in ways:
            calls = max(5, BYTES_PER_RUN // size // (64 if way.slow else 1))
            for verb, act in (("seal", way.seal), ("open", way.open)):
                rates.setdefault((way.name, verb), []).append(megabytes_per_second(act, size, calls))
    medians = {key: statistics.median(values) for key, values in rates.items()}
    share = {verb: round(medians["keystead", verb] / medians["limit", verb], 3) for verb in ("seal", "open")}
    return {
        "size_bytes": size,
        "megabytes_per_second": {way.name: {verb: round(medians[way.name, verb], 1) for verb in ("seal", "open")} for way in ways},
        "share_of_limit": share,
        "target": TARGETS[size],
        "reached": min(share.values()) >= TARGETS[size],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="seal and open objects, beside the limit")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    results = [measure(size, options.runs) for size in TARGETS]
    if options.json:
        print(json.dumps({"benchmark": "seal_open", "runs": options.runs, "results": results}, indent=1))
    else:
        for result in results:
            print(f"{result['size_bytes'] // KIB} KiB: share of the limit {result['share_of_limit']}, target {result['target']}")
            for name, rates in result["megabytes_per_second"].items():
                print(f"  {name:20} seal {rates['seal']:10.1f} MB/s   open {rates['open']:10.1f} MB/s")
    return 0 if all(result["reached"] for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
