from __future__ import annotations

import pytest

from cli.fake import Cli, FakeService


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def cli(service: FakeService, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(service, capsys)
