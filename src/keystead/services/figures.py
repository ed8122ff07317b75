"""Figures of the installation, for a front end that shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keystead.ports.figures import Figures
    from keystead.services.context import Services


def figures(services: Services) -> Figures:
    """One look at jobs, moves, policies and alerts of all tenants together.

    Raises:
        Unavailable: the database does not answer.
    """
    now, settings = services.clock.now(), services.settings
    with services.db.read() as tx:
        return tx.figures.look(now, now - settings.move_warning, now - settings.registration_warning)
