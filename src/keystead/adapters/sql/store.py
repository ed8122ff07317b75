"""The service's database on SQL: implements ports.tx.Database."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from keystead.adapters.sql.engine import reading, writing
from keystead.adapters.sql.migrate import ensure_current
from keystead.adapters.sql.rows_figures import SqlFigureRows
from keystead.adapters.sql.rows_files import SqlFileRows
from keystead.adapters.sql.rows_mailboxes import SqlMailboxRows
from keystead.adapters.sql.rows_objects import SqlObjectRows
from keystead.adapters.sql.rows_policies import SqlPolicyRows
from keystead.adapters.sql.rows_sign_in import SqlSignInRows
from keystead.adapters.sql.rows_sites import SqlSiteRows
from keystead.adapters.sql.rows_tenants import SqlTenantRows
from keystead.adapters.sql.rows_work import SqlAlertRows, SqlAuditRows, SqlHookRows, SqlJobRows, SqlSettingRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from keystead.ports.tx import Tx


class SqlTx:
    """One transaction; groups of rows are made when first asked for."""

    def __init__(self, connection: Connection, job_rows: Callable[[Connection], SqlJobRows] = SqlJobRows) -> None:
        self._connection = connection
        self._job_rows = job_rows

    @cached_property
    def tenants(self) -> SqlTenantRows:
        return SqlTenantRows(self._connection)

    @cached_property
    def sign_in(self) -> SqlSignInRows:
        return SqlSignInRows(self._connection)

    @cached_property
    def policies(self) -> SqlPolicyRows:
        return SqlPolicyRows(self._connection)

    @cached_property
    def mailboxes(self) -> SqlMailboxRows:
        return SqlMailboxRows(self._connection)

    @cached_property
    def sites(self) -> SqlSiteRows:
        return SqlSiteRows(self._connection)

    @cached_property
    def files(self) -> SqlFileRows:
        return SqlFileRows(self._connection)

    @cached_property
    def objects(self) -> SqlObjectRows:
        return SqlObjectRows(self._connection)

    @cached_property
    def jobs(self) -> SqlJobRows:
        return self._job_rows(self._connection)

    @cached_property
    def audit(self) -> SqlAuditRows:
        return SqlAuditRows(self._connection)

    @cached_property
    def alerts(self) -> SqlAlertRows:
        return SqlAlertRows(self._connection)

    @cached_property
    def hooks(self) -> SqlHookRows:
        return SqlHookRows(self._connection)

    @cached_property
    def settings(self) -> SqlSettingRows:
        return SqlSettingRows(self._connection)

    @cached_property
    def figures(self) -> SqlFigureRows:
        return SqlFigureRows(self._connection)


class SqlDatabase:
    """Opens transactions on one engine, whose schema it brings up to date first.

    Args:
        engine: the keystead database.
        job_rows: a fleet's jobs are more than rows.
    """

    def __init__(self, engine: Engine, job_rows: Callable[[Connection], SqlJobRows] = SqlJobRows) -> None:
        ensure_current(engine, "keystead")
        self._engine = engine
        self._job_rows = job_rows

    @contextmanager
    def write(self) -> Iterator[Tx]:
        with writing(self._engine) as connection:
            yield SqlTx(connection, self._job_rows)

    @contextmanager
    def read(self) -> Iterator[Tx]:
        with reading(self._engine) as connection:
            yield SqlTx(connection, self._job_rows)

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()
