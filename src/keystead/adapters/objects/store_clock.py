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
        Unavailable: no answer, or none with a date.
    """
    seconds = reach.timeout / 1_000
    try:
        connection = (
            http.client.HTTPSConnection(reach.host, reach.port, timeout=seconds, context=reach.context())
            if reach.scheme == "https"
            else http.client.HTTPConnection(reach.host, reach.port, timeout=seconds)
        )
        try:
            connection.request("HEAD", "/")
            date = connection.getresponse().getheader("Date", "")
        finally:
            connection.close()
        found = parsedate_to_datetime(date)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(
            "object_store_unavailable",
            f"container {container} does not tell what time it is",
            "check its endpoint, and that it is up, then try again",
        ) from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
