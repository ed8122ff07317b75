"""What every use case is told beside its request: who asks, for which tenant, from where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keystead.core.access.principal import Principal


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one route.

    Attributes:
        principal: who asks, already authenticated and allowed to call this route at all.
        tenant_id: the tenant the call is about; empty on routes that are not about one.
        route: name of the route, which is also the audited operation's default name.
        request_id: id of this call, in records and logs.
        client_ip: address of the caller, empty on the local transport.
    """

    principal: Principal
    tenant_id: str
    route: str
    request_id: str
    client_ip: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """A response that is bytes rather than a document: chunks of at most a few MiB, opened one at a time while being sent.

    Taking the next chunk may raise: access is checked again per part, and a part that does not open is never replaced by other data.
    """

    size: int
    media_type: str
    chunks: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Upload:
    """A request body that is bytes: `read(n)` returns at most n bytes, and none at the end."""

    size: int
    read: Callable[[int], bytes]
