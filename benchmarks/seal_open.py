"""Sealing and opening objects, beside the limit and beside other libraries on the same buffers.

usage: python -m benchmarks.seal_open [--json] [--quick] [--runs N]

- *limit*: AES-256-GCM of the OpenSSL that Keystead uses, in a bare loop with one nonce on a reused buffer: nothing else can be faster here.
- *keystead*: a whole sealed object into a reused buffer, with a fresh nonce from the operating system and a context built for each.
- *tink* (envelope encryption, its own key for each object) and *aws-encryption-sdk* (raw AES keyring, committing suite without signature), where installed
  (`requirements/bench.lock`).

Every figure is the median of several runs; the runs of all candidates are interleaved, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import os
import time
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.timing import Figure, Plan, interleaved, main, share, spread
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keystead.core.formats import sealed_object
from keystead.core.formats.aead import Aes
from keystead.core.formats.context import object_context
from keystead.core.secret import SecretKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KIB = 1024
LIMIT = "limit"
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
    return Candidate(LIMIT, lambda: cipher.encrypt_into(nonce, data, b"", box), lambda: cipher.decrypt_into(nonce, box, b"", out))


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


def rates(size: int, plan: Plan) -> dict[tuple[str, str], list[float]]:
    """MB/s of every candidate and verb, for objects of one size."""
    ways = candidates(os.urandom(size))
    work = BYTES_PER_RUN // (8 if plan.quick else 1)

    def way(candidate: Candidate, act: Callable[[], object]) -> Callable[[], float]:
        calls = max(5, work // size // (64 if candidate.slow else 1))
        return lambda: megabytes_per_second(act, size, calls)

    acts = {(one.name, verb): way(one, act) for one in ways for verb, act in (("seal", one.seal), ("open", one.open))}
    return interleaved(acts, plan.runs)


def measure(_place: Path, plan: Plan) -> list[Figure]:
    figures: list[Figure] = []
    for size, target in TARGETS.items():
        found = rates(size, plan)
        for verb in ("seal", "open"):
            ours, *others = (spread(name, values) for (name, of), values in sorted(found.items(), key=_first) if of == verb)
            part = share(ours, next(other for other in others if other.name == LIMIT))
            figures.append(
                Figure(
                    f"{verb} objects of {size // KIB} KiB",
                    "MB/s",
                    ours,
                    f"at least {target:g} of the limit",
                    part >= target,
                    others,
                    f"{part:.2f} of it",
                )
            )
    return figures


def _first(entry: tuple[tuple[str, str], list[float]]) -> tuple[bool, bool]:
    """Keystead, then the limit, then the others."""
    return entry[0][0] != "keystead", entry[0][0] != LIMIT


if __name__ == "__main__":
    raise SystemExit(main("seal_open", measure, runs=15))
