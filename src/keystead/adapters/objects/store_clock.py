"""What time it is for a store: ages of objects are told by the clock that dated them, not by ours."""

from __future__ import annotations

import http.client
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from keystead.core.errors import Unavailable

if TYPE_CHECKING:
    from keystead.adapters.objects.reaching import Reach


def store_time(reach: Reach, container: str) -> float:
    """Seconds since the epoch by the store's clock: the Date of its answer to a request that asks for nothing (RFC 9110 section 6.6.1).

    The request carries no credentials; whatever the answer's status, it is dated. To the second, like the dates of objects.

    Raises:
        OSError: no answer; it may be asked again.
        Unavailable: an answer without a date.
    """
    seconds = reach.timeout / 1_000
    connection = (
        http.client.HTTPSConnection(reach.host, reach.port, timeout=seconds, context=reach.context())
        if reach.scheme == "https"
        else http.client.HTTPConnection(reach.host, reach.port, timeout=seconds)
    )
    try:
        connection.request("HEAD", "/")
        date = connection.getresponse().getheader("Date", "")
    except http.client.HTTPException as error:
        raise ConnectionError from error
    finally:
        connection.close()
    try:
        found = parsedate_to_datetime(date)
    except ValueError:
        raise Unavailable(
            "object_store_unavailable",
            f"container {container} does not tell what time it is, so nobody knows how old its objects are",
            "see what stands between Keystead and the store: every answer over HTTP has a Date",
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
