HTTP_FORBIDDEN: int
HTTP_LOCKED: int
HTTP_NOT_MODIFIED: int
HTTP_NOT_FOUND: int
HTTP_PRECONDITION_FAILED: int
PRECONDITION_CODE_LockConflict: str
PRECONDITION_CODE_MissingLockToken: str
PRECONDITION_CODE_PropfindFiniteDepth: str
PRECONDITION_CODE_ProtectedProperty: str

class DAVErrorCondition:
    hrefs: list[str]
    def __init__(self, condition_code: str) -> None: ...
    def add_href(self, href: str) -> None: ...

class DAVError(Exception):
    value: int
    err_condition: DAVErrorCondition | None
    add_headers: list[tuple[str, str]] | None
    def __init__(
        self,
        status_code: int,
        context_info: str | None = ...,
        *,
        src_exception: Exception | None = ...,
        err_condition: DAVErrorCondition | str | None = ...,
        add_headers: list[tuple[str, str]] | None = ...,
        add_body: bool = ...,
    ) -> None: ...
    def get_user_info(self) -> str: ...
    def get_response_page(self) -> tuple[str, bytes]: ...
