from typing import Any

class BaseMiddleware:
    wsgidav_app: Any
    next_app: Any
    config: Any
    def __init__(self, wsgidav_app: Any, next_app: Any, config: Any) -> None: ...
