"""The dispatcher: who, about what, may they, is it what the row says, the handler, the record of a refusal; in this order."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from keystead.api.call import Call, Content, Upload
from keystead.api.dispatch import Dispatcher
from keystead.api.routes import BY_NAME, Body, Route, Side
from keystead.api.types.base import Request
from keystead.api.types.mailboxes import ImportBatch, ImportItem, NameItem, NameMailbox, Search
from keystead.core.access.principal import NOBODY, Principal, Role
from keystead.core.errors import (
    Conflict,
    Forbidden,
    IntegrityFailure,
    InvalidRequest,
    KeyDenied,
    KeysteadError,
    NotFound,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TENANT = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
USER = Principal("alex@contoso.example", TENANT, frozenset({Role.USER}))
calls: list[tuple[object, Call, Any]] = []
failure: list[BaseException] = []


def handler(side: object, call: Call, request: Any, upload: Upload | None = None) -> Any:
    """What the rows of these tests run."""
    calls.append((side, call, request))
    if failure:
        raise failure[0]
    if call.route == "mailbox.read":
        return Content(3, "message/rfc822", chunks())
    return upload.read(10) if upload else "answer"


def chunks() -> Iterator[bytes]:
    yield b"one"
    raise IntegrityFailure("damaged", "part 1 of item x is damaged")


@dataclass
class Directory:
    """Knows two tenants, and keeps what was refused."""

    seen: list[tuple[Call, KeysteadError]] = field(default_factory=list)

    def tenant_id(self, reference: str) -> str | None:
        return {"contoso.example": TENANT, TENANT: TENANT, "fabrikam.example": OTHER}.get(reference)

    def refused(self, call: Call, error: KeysteadError) -> None:
        self.seen.append((call, error))


@pytest.fixture
def directory() -> Directory:
    calls.clear()
    failure.clear()
    return Directory()


@pytest.fixture
def dispatcher(directory: Directory) -> Dispatcher:
    return Dispatcher({Side.SERVICE: "service", Side.VAULT: "vault"}, directory, bytes)


def row(name: str, **changes: Any) -> Route:
    """A row of the table with our handler."""
    sys.modules.setdefault("keystead_test_dispatch", sys.modules[__name__])
    return replace(BY_NAME[name], handler="keystead_test_dispatch:handler", **changes)


STATISTICS = NameMailbox(upn="alex@contoso.example")


def test_the_handler_gets_its_side_of_the_house_and_who_asks_about_which_tenant(dispatcher: Dispatcher, directory: Directory) -> None:
    assert dispatcher.run(row("mailbox.statistics"), STATISTICS, principal=USER, client_ip="192.0.2.1") == "answer"
    ((side, call, request),) = calls
    assert (side, request) == ("service", STATISTICS)
    assert (call.principal, call.tenant_id, call.route, call.client_ip) == (USER, TENANT, "mailbox.statistics", "192.0.2.1")
    assert len(call.request_id) == 36
    dispatcher.run(row("vault.list"), BY_NAME["vault.list"].request(), principal=USER)
    assert calls[-1][0] == "vault"
    assert directory.seen == []


@pytest.mark.parametrize(
    ("principal", "tenant", "kind", "code"),
    [
        (NOBODY, "contoso.example", Unauthenticated, "not_signed_in"),
        (USER, "fabrikam.example", Forbidden, "another_tenant"),
        (replace(USER, roles=frozenset({Role.SUPPORT_ENGINEER}), tenant_id=None), "contoso.example", Forbidden, "role_missing"),
    ],
)
def test_who_may_not_does_not_reach_the_handler_and_is_recorded(
    dispatcher: Dispatcher, directory: Directory, principal: Principal, tenant: str, kind: type[KeysteadError], code: str
) -> None:
    with pytest.raises(kind) as caught:
        dispatcher.run(row("mailbox.statistics"), STATISTICS, principal=principal, tenant=tenant)
    assert caught.value.code == code
    assert calls == []
    ((call, error),) = directory.seen
    assert (call.route, error) == ("mailbox.statistics", caught.value)


def test_whether_somebody_may_is_asked_before_what_they_send_is_looked_at(dispatcher: Dispatcher) -> None:
    with pytest.raises(Unauthenticated):
        dispatcher.run(row("mailbox.statistics"), object(), principal=NOBODY, tenant="contoso.example")
    with pytest.raises(InvalidRequest) as caught:
        dispatcher.run(row("mailbox.statistics"), NameItem(upn="x", item="y"), principal=USER)
    assert caught.value.code == "request_type"


def test_a_tenant_must_be_named_by_who_has_none(dispatcher: Dispatcher) -> None:
    operator = Principal("operator@provider.example", None, frozenset({Role.OPERATOR}), dev=True)
    with pytest.raises(InvalidRequest) as caught:
        dispatcher.run(row("mailbox.list"), BY_NAME["mailbox.list"].request(), principal=operator)
    assert caught.value.code == "tenant_missing"
    with pytest.raises(NotFound) as missing:
        dispatcher.run(row("mailbox.list"), BY_NAME["mailbox.list"].request(), principal=operator, tenant="nowhere.example")
    assert missing.value.code == "tenant_not_found"
    assert calls == []


def test_types_and_sizes_hold_as_over_a_wire(dispatcher: Dispatcher) -> None:
    for request in (Search(text=""), Search(text="x" * 201), Search(text="x", limit=0), Search(text=5)):  # type: ignore[arg-type]  # on purpose
        with pytest.raises(InvalidRequest) as caught:
            dispatcher.run(row("mailbox.search"), request, principal=USER)
        assert caught.value.code == "request_invalid"
    with pytest.raises(InvalidRequest) as caught:
        dispatcher.run(row("mailbox.statistics"), NameMailbox(upn="x" * 70_000), principal=USER)
    assert caught.value.code == "request_too_large"
    dispatcher.run(row("mailbox.statistics", max_body=10**6), NameMailbox(upn="x" * 70_000), principal=USER)
    assert len(calls) == 1


def test_a_batch_of_message_bytes_is_handed_on_as_it_is(dispatcher: Dispatcher) -> None:
    batch = ImportBatch(upn="alex@contoso.example", items=[ImportItem(position=1, ordinal=1, folder="", data=b"\xff")])
    dispatcher.run(row("mailbox.import"), batch, principal=USER)
    assert calls[0][2] is batch
    assert BY_NAME["mailbox.import"].body is Body.BATCH


def test_an_upload_reaches_the_handler(dispatcher: Dispatcher) -> None:
    request = msgspec.convert({"upn": "a", "position": 1, "ordinal": 1, "folder": ""}, BY_NAME["mailbox.import-item"].request)
    assert dispatcher.run(row("mailbox.import-item"), request, principal=USER, upload=Upload(3, lambda _size: b"abc")) == b"abc"


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (KeyDenied("denied_by_customer_key", "no"), True),
        (Conflict("taken", "no"), True),
        (IntegrityFailure("damaged", "no"), True),
        (NotFound("mailbox_not_found", "no"), False),
        (Unavailable("storage_full", "no"), False),
        (InvalidRequest("bad", "no"), False),
        (RuntimeError("a defect"), False),
    ],
)
def test_refusals_and_damage_are_recorded_and_pass_unchanged(
    dispatcher: Dispatcher,
    directory: Directory,
    error: Exception,
    recorded: bool,  # noqa: FBT001 - a table of cases
) -> None:
    failure.append(error)
    with pytest.raises(type(error)) as caught:
        dispatcher.run(row("mailbox.statistics"), STATISTICS, principal=USER)
    assert caught.value is error
    assert [seen for _call, seen in directory.seen] == ([error] if recorded else [])


def test_damage_in_the_middle_of_a_stream_is_recorded_too(dispatcher: Dispatcher, directory: Directory) -> None:
    content = dispatcher.run(row("mailbox.read"), NameItem(upn="alex@contoso.example", item="x"), principal=USER)
    assert (content.size, content.media_type) == (3, "message/rfc822")
    assert next(content.chunks) == b"one"
    assert directory.seen == []
    with pytest.raises(IntegrityFailure):
        next(content.chunks)
    assert len(directory.seen) == 1


def test_a_refusal_that_cannot_be_recorded_is_no_permission(directory: Directory) -> None:
    class Full(Directory):
        def refused(self, call: Call, error: KeysteadError) -> None:
            raise Unavailable("database_unavailable", "the log is full")

    full = Dispatcher({Side.SERVICE: "service"}, Full(), bytes)
    with pytest.raises(Unavailable):
        full.run(row("mailbox.statistics"), STATISTICS, principal=NOBODY, tenant="contoso.example")
    assert calls == []


def test_requests_refuse_fields_they_do_not_know() -> None:
    for route in BY_NAME.values():
        assert issubclass(route.request, Request)
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(b'{"no_such_field": 1}', type=route.request)
