"""A simulated tenant on PostgreSQL: a million mailboxes with a hundred items each, as rows; what it costs to work with, and its size.

The rows are made by the server itself, as wide as rows of really imported items; their objects are not there. One mailbox is real. Two
sizes are built and measured, so that what is said of larger ones can be worked out. The large one takes half an hour and a hundred
gigabytes: it stops when the disk is four fifths full or its time is up, and the report says how far it came.
"""

from __future__ import annotations

import base64
import os
import random
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from benchmarks import home as homes
from benchmarks import postgresql, rows
from benchmarks.mail import MailMaker
from benchmarks.policy import rewrap
from benchmarks.timing import Figure, Plan, main, seconds, spread

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.core.ids import new_id
from keystead.core.keys.decide import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from psycopg import Connection

    from keystead.wiring import Home
    from support.postgres import Cluster

MAILBOXES, ITEMS = 1_000_000, 100_000_000
SMALL = 10_000, 1_000_000
QUICK = (200, 4_000), (1_000, 20_000)
ROUNDS = 10
"""A mailbox's items are made in so many rounds over all mailboxes, each with an object of its own, as mail comes over months."""
REAL_ITEMS = 300
BATCH_ITEMS, BATCH_BYTES = 64, 16_000
FULLEST, LONGEST_SECONDS = 0.8, 120 * 60
INDEX_SHARE = 0.8
"""How much making the indexes takes on the disk, sorting included, by the size of the items' table without them."""
BESIDE_BYTES = 6_000
"""What everything else needs, by mailbox: its own rows, those of an assignment, the log."""
INDEX_TIME = 1.2
"""How long it takes, by the time of making the rows."""
REFRESH_MS, LIST_MS = 1_000, 50
TABLES = ("mailboxes", "mailbox_keys", "folders", "items", "objects")


@dataclass
class Built:
    """A tenant and its costs.

    Attributes:
        whole: whether as many items were made as were asked for.
        times: what was measured, in milliseconds; `assign` in seconds.
        sizes: table: bytes of its rows, bytes of each index; counts: how many rows.
    """

    mailboxes: int
    items: int
    whole: bool = True
    fill_seconds: float = 0.0
    index_seconds: float = 0.0
    times: dict[str, list[float]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, dict[str, int]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def measure(place: Path, plan: Plan) -> list[Figure]:
    if not postgresql.available():
        raise RuntimeError("PostgreSQL is not installed: scripts/setup-tools")
    small, large = QUICK if plan.quick else (SMALL, (MAILBOXES, ITEMS))
    return _figures([_built(place / "small", *small, plan), _built(place / "large", *large, plan)])


def _built(place: Path, mailboxes: int, items: int, plan: Plan) -> Built:
    place.mkdir(mode=0o755)
    settings = {"max_wal_size": "2GB", "maintenance_work_mem": "1GB", "shared_buffers": "1GB", "wal_level": "minimal"}
    try:
        with postgresql.cluster(place, max_wal_senders="0", autovacuum="off", **settings) as cluster:
            member = postgresql.member(place / "member", cluster)
            with homes.bench_home(member) as home:
                built = Built(mailboxes, items)
                upn = _real_mailbox(home)
                _fill(cluster, home, built, place)
                cluster.restart()
                _weigh(cluster, built)
                _measure(home, built, upn, plan)
                return built
    finally:
        shutil.rmtree(place)


# -- making it ------------------------------------------------------------------------------------------------------------------------


def _real_mailbox(home: Home) -> str:
    """One mailbox whose items can be listed and read."""
    upn = homes.mailbox(home, "alex")
    client = homes.admin(home)
    client.wait(homes.assign(home, homes.POLICIES[0], upn))
    items = [m.ImportItem(position=n, ordinal=1, folder="Inbox", data=data) for n, data in enumerate(islice(MailMaker(1), REAL_ITEMS), 1)]
    client.call("mailbox.import", m.ImportBatch(upn=upn, items=items))
    return upn


def _fill(cluster: Cluster, home: Home, built: Built, place: Path) -> None:
    """All other rows. The server gives way to everybody else's work meanwhile, where the system lets us take that back."""
    server = cluster._server  # noqa: SLF001 - our tests' own class
    assert server is not None
    if os.geteuid() == 0:
        subprocess.run(["renice", "-n", "19", "-p", str(server.pid)], check=True, capture_output=True)
        subprocess.run(["ionice", "-c3", "-p", str(server.pid)], check=True)
    with cluster.connection(_database(cluster)) as connection:
        for setting in ("session_replication_role = replica", "statement_timeout = 0", "idle_in_transaction_session_timeout = 0"):
            connection.execute(f"SET {setting}")
        begin = time.perf_counter()
        again = [statement for table in TABLES for statement in _without_indexes(connection, table)]
        policy = rows.policy_of(home, homes.POLICIES[0])
        for statement in _PREPARE:
            connection.execute(statement, {"count": built.mailboxes})
        with connection.transaction():  # a table that is emptied and filled in one transaction needs no log of it
            connection.execute("CREATE TEMPORARY TABLE bench_real ON COMMIT DROP AS SELECT * FROM items")
            connection.execute("TRUNCATE items")
            each = _items(connection, built, place, begin)
            connection.execute("INSERT INTO items SELECT * FROM bench_real")
        built.items = each * built.mailboxes
        values = {"policy": policy.id, "tenant": policy.tenant_id, "domain": homes.DOMAIN, "items": each, "bytes": each * 13_000}
        connection.execute(_MAILBOXES, values)
        connection.execute(_FOLDERS)
        _keys(connection, home, policy.id)
        built.fill_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        for statement in (*again, "DROP TABLE bench_boxes, bench_samples, bench_bytes", "ANALYZE", "CHECKPOINT"):
            connection.execute(statement)
        built.index_seconds = time.perf_counter() - begin


def _database(cluster: Cluster) -> str:
    """Where the service's tables are."""
    ((name,),) = cluster.execute("SELECT datname FROM pg_database WHERE datname LIKE '%keystead'")
    return str(name)


def _items(connection: Connection[tuple[Any, ...]], built: Built, place: Path, begin: float) -> int:
    """Round after round, while there is room and time; how many items each mailbox has then."""
    each = max(1, built.items // built.mailboxes // ROUNDS)
    for number in range(ROUNDS):
        values = {"round": number, "each": each}
        connection.execute(_ITEMS, values)
        connection.execute(_OBJECTS, values)
        spent = (time.perf_counter() - begin) / (number + 1)
        size = _scalar(connection, "SELECT pg_table_size('items')") / (number + 1)
        disk = shutil.disk_usage(place)
        room = FULLEST * (disk.used + disk.free) - disk.used - BESIDE_BYTES * built.mailboxes
        another = size + (number + 2) * size * INDEX_SHARE
        if number + 1 < ROUNDS and (another > room or spent * (number + 2) * (1 + INDEX_TIME) > LONGEST_SECONDS):
            built.whole = False
            return each * (number + 1)
    return each * ROUNDS


def _keys(connection: Connection[tuple[Any, ...]], home: Home, policy_id: str) -> None:
    """Real wrapped keys, so that the mailboxes can be assigned to another policy."""
    opened = home.services.keyring.open(policy_id, Operation.SYSTEM, request_id=new_id(os.urandom))
    found = connection.execute("SELECT id FROM bench_boxes").fetchall()
    with connection.cursor().copy("COPY mailbox_keys FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["text", "int4", "bytea"])
        for (mailbox_id,) in found:
            copy.write_row((mailbox_id, 1, opened.new_mailbox_key(mailbox_id, 1, os.urandom)))


def _without_indexes(connection: Connection[tuple[Any, ...]], table: str) -> Iterator[str]:
    """Take indexes and keys off a table, but for one that others point at; the statements that bring them back."""
    owned = connection.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint AS own WHERE conrelid = %(table)s::regclass AND contype IN ('p', 'u')"
        " AND NOT EXISTS (SELECT FROM pg_constraint AS other WHERE other.contype = 'f' AND other.conindid = own.conindid)",
        {"table": table},
    ).fetchall()
    for name, definition in owned:
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        yield f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}"
    left = connection.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %(table)s::regclass"
        " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)",
        {"table": table},
    ).fetchall()
    for name, definition in left:
        connection.execute(f"DROP INDEX {name}")
        yield definition


def _scalar(connection: Connection[tuple[Any, ...]], query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


_PREPARE = (
    # What is made for each mailbox; widths of the rows of really imported items; bytes that do not compress, too few to be stored apart.
    """CREATE UNLOGGED TABLE bench_boxes AS
    SELECT n, gen_random_uuid()::text AS id, gen_random_uuid()::text AS folder_id FROM generate_series(1, %(count)s) AS n""",
    "CREATE UNLOGGED TABLE bench_samples AS SELECT row_number() OVER () AS n, size, length, length(summary) AS summary FROM items",
    "CREATE UNLOGGED TABLE bench_bytes AS SELECT string_agg(sha256(n::text::bytea), '') AS bytes FROM generate_series(1, 50) AS n",
    "ANALYZE bench_boxes, bench_samples, bench_bytes",
)
_ITEMS = """
INSERT INTO items SELECT substr(time, 1, 8) || '-' || substr(time, 9, 4) || '-7' || substr(fresh, 16), box, folder_id, 'message',
    1600000000000 + %(round)s * 15000000000 + (random() * 15000000000)::bigint, sample.size, 1, sha256(fresh::bytea),
    substr((SELECT bytes FROM bench_bytes), 1 + (random() * 1200)::int, sample.summary), ref, place * 8192, sample.length, 1
FROM (
    SELECT box.id AS box, box.folder_id, gen_random_uuid()::text AS fresh,
        1 + floor(random() * (SELECT count(*) FROM bench_samples))::bigint AS sample,
        lpad(to_hex(1700000000000 + %(round)s * 2600000000 + box.n), 12, '0') AS time,
        'c' || box.n %% 4 || '/' || md5(box.id || %(round)s) AS ref, place
    FROM bench_boxes AS box, generate_series(0, %(each)s - 1) AS place
) AS made JOIN bench_samples AS sample ON sample.n = made.sample
"""
_OBJECTS = """
INSERT INTO objects SELECT 'c' || n %% 4 || '/' || md5(id || %(round)s), id, 1, 7500 * %(each)s, %(each)s, false, NULL FROM bench_boxes
"""
_MAILBOXES = """
INSERT INTO mailboxes SELECT id, %(tenant)s, 'box' || lpad(n::text, 7, '0') || '@' || %(domain)s, 'user', true, 1700000000000 + n, %(policy)s,
    NULL, 1, 'done', 1700000000000 + n, 1700000000000 + n, 0, %(items)s, %(bytes)s FROM bench_boxes
"""
_FOLDERS = """
INSERT INTO folders SELECT CASE place WHEN 1 THEN box.folder_id ELSE gen_random_uuid()::text END, box.id, 1, sha256((box.id || place)::bytea),
    (SELECT sealed_name FROM folders LIMIT 1) FROM bench_boxes AS box, generate_series(1, 4) AS place
"""


# -- measuring it ---------------------------------------------------------------------------------------------------------------------


def _weigh(cluster: Cluster, built: Built) -> None:
    with cluster.connection(_database(cluster)) as connection:
        for table in TABLES:
            indexes = connection.execute(
                "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index WHERE indrelid = %s::regclass", (table,)
            ).fetchall()
            built.counts[table] = _scalar(connection, f"SELECT count(*) FROM {table}")  # noqa: S608 - one of ours
            built.sizes[table] = _scalar(connection, f"SELECT pg_table_size('{table}')"), dict(indexes)


def _measure(home: Home, built: Built, upn: str, plan: Plan) -> None:
    client, owner = homes.admin(home), homes.owner(home, upn)
    tenant_id = rows.policy_of(home, homes.POLICIES[0]).tenant_id
    chance = random.Random(built.mailboxes)
    others = [rows.upn_of(chance.randrange(1, built.mailboxes)) for _ in range(100)]
    listed = m.ListItems(upn=upn, limit=100)
    item = homes.item_ids(owner, upn)[0]
    acts: dict[str, Callable[[int], object]] = {
        "refresh": lambda _n: client.call("policy.refresh", p.NamePolicy(policy=homes.POLICIES[0])),
        "list": lambda _n: owner.call("mailbox.items", listed),
        "rows": lambda n: _first_page(home, tenant_id, others[n]),
        "read": lambda _n: homes.read(owner, upn, item),
        "statistics": lambda n: client.call("mailbox.statistics", m.NameMailbox(upn=others[-n])),
        "mailboxes": lambda n: client.call("mailbox.list", m.ListMailboxes(after=others[n])),
        "import": lambda n: client.call("mailbox.import", m.ImportBatch(upn=upn, items=_batch(n))),
        "policy": lambda _n: client.call("policy.show", p.NamePolicy(policy=homes.POLICIES[0])),
    }
    for name, act in acts.items():
        built.times[name] = [1_000 * seconds(lambda: act(n)) for n in range(5 * plan.runs)]  # noqa: B023 - run at once
    everything = built.mailboxes + 1
    built.times["assign"] = [everything / rewrap(home, 0, everything)]


def _first_page(home: Home, tenant_id: str, upn: str) -> None:
    """The rows of the first page of a mailbox that is not real, which nobody has looked at before."""
    with home.services.db.read() as tx:
        mailbox = tx.mailboxes.find(tenant_id, upn)
        assert mailbox is not None
        if not tx.mailboxes.items(mailbox.id, after="", limit=100):
            raise RuntimeError(f"{upn} has no items")


def _batch(number: int) -> list[m.ImportItem]:
    head = f"Subject: batch {number}\r\n\r\n".encode()
    return [
        m.ImportItem(position=n, ordinal=1, folder="Inbox", data=(head + base64.encodebytes(os.urandom(BATCH_BYTES)))[:BATCH_BYTES])
        for n in range(1, BATCH_ITEMS + 1)
    ]


# -- telling --------------------------------------------------------------------------------------------------------------------------


def _figures(builds: list[Built]) -> list[Figure]:
    large = builds[-1]
    title = f"{large.mailboxes:,} mailboxes, {large.items:,} items"
    figures = [
        _timed(builds, "refresh", f"refresh of a policy of {title}", f"under {REFRESH_MS:,} ms", REFRESH_MS),
        _timed(builds, "list", "first page of 100 items of a mailbox", f"under {LIST_MS} ms", LIST_MS),
        _timed(builds, "rows", "the rows of that page, of mailboxes nobody has looked at before"),
        _timed(builds, "read", "reading an item"),
        _timed(builds, "statistics", "statistics of a mailbox"),
        _timed(builds, "mailboxes", "a page of 100 mailboxes"),
        _timed(builds, "policy", "showing the policy, which counts its mailboxes"),
        _timed(builds, "import", f"import of a batch of {BATCH_ITEMS} items of 16 KB"),
        _timed(builds, "assign", "re-wrap of all mailboxes on assignment, with a move begun for each", unit="mailboxes/s", turned=True),
    ]
    figures += [_size(builds, table, what) for table, what in _WHAT.items()]
    figures.append(_plain(builds, "making the rows", "s", [built.fill_seconds for built in builds]))
    figures.append(_plain(builds, "making the indexes", "s", [built.index_seconds for built in builds]))
    return figures


_WHAT = {
    "items": "an item",
    "objects": "an object, of which there is one for each import into a mailbox",
    "folders": "a folder, of which there are four to a mailbox",
    "mailboxes": "a mailbox",
    "mailbox_keys": "a mailbox key",
}


def _timed(
    builds: list[Built], name: str, what: str, target: str = "", most: float = 0.0, unit: str = "ms", *, turned: bool = False
) -> Figure:
    def runs(built: Built) -> list[float]:
        return [built.mailboxes / value for value in built.times[name]] if turned else built.times[name]

    small, large = builds
    value = spread("keystead", runs(large))
    reached = value.median < most if target else None
    return Figure(what, unit, value, target, reached, [spread(f"with {small.items:,} items", runs(small))])


def _size(builds: list[Built], table: str, what: str) -> Figure:
    def each(built: Built) -> tuple[float, float]:
        rows_of = built.counts[table]
        own, indexes = built.sizes[table]
        return own / rows_of, sum(indexes.values()) / rows_of

    small, large = builds
    (rows_large, indexes_large), (rows_small, indexes_small) = each(large), each(small)
    _own, indexes = large.sizes[table]
    parts = ", ".join(f"{name} {size / large.counts[table]:.0f}" for name, size in sorted(indexes.items()))
    return Figure(
        f"database size of {what}: row and indexes",
        "bytes",
        spread("keystead", [rows_large + indexes_large]),
        beside=[
            spread("its row", [rows_large]),
            spread("its indexes", [indexes_large]),
            spread(f"with {small.items:,} items", [rows_small + indexes_small]),
        ],
        note=parts,
    )


def _plain(builds: list[Built], what: str, unit: str, values: list[float]) -> Figure:
    return Figure(what, unit, spread("keystead", [values[-1]]), beside=[spread(f"with {builds[0].items:,} items", [values[0]])])


if __name__ == "__main__":
    raise SystemExit(main("tenant", measure, runs=4))
