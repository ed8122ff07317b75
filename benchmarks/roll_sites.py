"""Rolling a geo: the key work of one core, and 1,000 to 100,000 sites from the asking to `Registered`, on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from benchmarks import home as homes
from benchmarks import postgresql, rows
from benchmarks.timing import Figure, Plan, main, spread

from keystead.api.types import file_policies as f
from keystead.core.formats.aead import Aes
from keystead.core.formats.files import SITE_KEY, site_key_context, site_key_name
from keystead.core.formats.wrapped_key import rewrap_all, wrap
from keystead.core.ids import new_id
from keystead.core.keys.decide import Operation
from keystead.core.policies.policy import POLICY_KEY_VERSION
from keystead.core.secret import KEY_BYTES, SecretKey
from keystead.core.stores.files import Site, SiteKey, SiteKind
from keystead.core.stores.mailbox import MoveState

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.wiring import Home

SIZES, QUICK_SIZES = (1_000, 10_000, 100_000), (100, 300, 1_000)
KEYS_A_SECOND = 100_000
SECONDS = {"SQLite": 10, "PostgreSQL": 20}
"""For the largest size."""
KEYS_A_RUN = 50_000
SITE_BYTES = 16_000


def measure(place: Path, plan: Plan) -> list[Figure]:
    sizes = QUICK_SIZES if plan.quick else SIZES
    figures = [_key_work(plan)]
    with homes.files_home(place / "home") as home:
        figures.append(_curve("SQLite", home, sizes, plan))
    if postgresql.available():
        with postgresql.cluster(place) as cluster, homes.files_home(postgresql.member(place / "member", cluster)) as home:
            figures.append(_curve("PostgreSQL", home, sizes, plan))
    return figures


def _key_work(plan: Plan) -> Figure:
    """Open and wrap again, by processor time: what one core does when nobody else uses it."""
    tenant, old_id, new_id_ = (new_id(os.urandom) for _ in range(3))
    old, new = (Aes(SecretKey(os.urandom(KEY_BYTES))) for _ in range(2))
    keys = [_wrapped(old, tenant, new_id(os.urandom), old_id) for _ in range(KEYS_A_RUN // 10 if plan.quick else KEYS_A_RUN)]
    rates = []
    for _ in range(max(plan.runs, 5)):
        start = time.process_time()
        count = sum(
            1
            for _ in rewrap_all(
                keys,
                tenant_id=tenant,
                kind=SITE_KEY,
                old=old,
                old_id=old_id,
                old_version=POLICY_KEY_VERSION,
                new=new,
                new_id=new_id_,
                new_version=POLICY_KEY_VERSION,
                random=os.urandom,
            )
        )
        rates.append(count / (time.process_time() - start))
    value = spread("keystead", rates)
    target = f"at least {KEYS_A_SECOND:,} sites/s"
    return Figure("site keys wrapped by another TIK, on one core", "sites/s", value, target, value.median >= KEYS_A_SECOND)


def _wrapped(parent: Aes, tenant: str, site: str, policy: str) -> tuple[str, bytes]:
    context = site_key_context(tenant, site, 1, policy, POLICY_KEY_VERSION)
    key = SecretKey(os.urandom(KEY_BYTES))
    blob = wrap(parent, key, parent_id=policy, parent_version=POLICY_KEY_VERSION, context=context, nonce=os.urandom(12))
    return site_key_name(site, 1), blob


def what(where: str) -> str:
    """What the report calls the rolls on a database."""
    return f"roll of one key of a geo, {where}"


def _curve(where: str, home: Home, sizes: tuple[int, ...], plan: Plan) -> Figure:
    """One geo that grows; at each size it is rolled to a new version of its primary key."""
    taken: dict[int, list[float]] = {}
    have = 1  # the home has a site already
    for size in sizes:
        _add_sites(home, have, size)
        have = size
        taken[size] = [_roll(home, size) for _ in range(plan.runs)]
    largest = spread("keystead", taken[sizes[-1]])
    return Figure(
        f"{what(where)}: {sizes[-1]:,} sites",
        "s",
        largest,
        f"under {SECONDS[where]} s for {SIZES[-1]:,} sites",
        largest.median < SECONDS[where],
        [spread(f"{size:,}", taken[size]) for size in sizes[:-1]],
        f"{sizes[-1] / largest.median:,.0f} sites a second",
    )


def _roll(home: Home, size: int) -> float:
    """Seconds from asking until the geo is registered again, with every site under the fresh TIK."""
    client = homes.admin(home)
    primary, _secondary = homes.file_keys(home)
    start = time.perf_counter()
    homes.done(client, client.call("files.roll", f.RollFiles(geo=homes.GEO, which="primary", key=primary)))
    taken = time.perf_counter() - start
    status: f.FilesStatus = client.call("files.status", f.NameGeo(geo=homes.GEO))
    if (status.state, status.sites, status.primary_key_uri) != ("Registered", size, primary):
        raise RuntimeError(f"after the roll the geo of {size} sites is {status}")
    return taken


def _add_sites(home: Home, first: int, last: int) -> None:
    """Sites number `first` to `last - 1`, straight into the database, with real wrapped keys; what they claim to hold is not there."""
    services = home.services
    with services.db.read() as tx:
        tenant = tx.tenants.find(homes.DOMAIN)
        assert tenant is not None
        geo = tx.sites.geo(tenant.id, homes.GEO)
    assert geo is not None
    assert geo.policy_id is not None
    opened = services.keyring.open(geo.policy_id, Operation.SYSTEM, request_id=new_id(services.random))
    now = services.clock.now()
    for start in range(first, last, rows.BATCH):
        sites = [
            Site(
                id=new_id(os.urandom),
                tenant_id=tenant.id,
                url=f"https://{homes.DOMAIN}/sites/bench-{number:07}",
                kind=SiteKind.SITE,
                geo=homes.GEO,
                owner=homes.SITE_OWNER,
                shared=True,
                created=now,
                policy_id=geo.policy_id,
                key_version=1,
                move_state=MoveState.DONE,
                moved_at=now,
                moved=0,
                quota_bytes=services.settings.site_quota_bytes,
                file_count=1,
                size_bytes=SITE_BYTES,
                stored_bytes=SITE_BYTES,
            )
            for number in range(start, min(start + rows.BATCH, last))
        ]
        keys = [SiteKey(site.id, 1, opened.new_site_key(site.id, 1, os.urandom)) for site in sites]
        with services.db.write() as tx:
            tx.sites.insert_many(sites, keys)


if __name__ == "__main__":
    raise SystemExit(main("roll_sites", measure, runs=3))
