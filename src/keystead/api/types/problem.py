"""Errors as they travel."""

import msgspec

from keystead.api.types.base import Response
from keystead.api.types.policies import CheckView


class Problem(Response, frozen=True):
    """A problem document (RFC 9457). `code` is the stable name of the cause (docs/errors.md), `mend` what to do next."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    mend: str
    failed_checks: list[CheckView] | msgspec.UnsetType = msgspec.UNSET
