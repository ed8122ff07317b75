from collections.abc import Iterable, Mapping
from typing import Any
from wsgiref.types import StartResponse

class WsgiDAVApp:
    config: dict[str, Any]
    def __init__(self, config: Mapping[str, Any]) -> None: ...
    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]: ...
