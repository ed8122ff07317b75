from typing import Any
from wsgiref.types import WSGIApplication

class BaseMiddleware:
    wsgidav_app: WSGIApplication
    next_app: Any
    config: dict[str, Any]
    def __init__(self, wsgidav_app: WSGIApplication, next_app: WSGIApplication, config: dict[str, Any]) -> None: ...
