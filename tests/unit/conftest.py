"""The fakes, one of each to a test."""

from __future__ import annotations

import pytest

from tests.unit.fakes import FakeClock, FakeLink, FakePaths, FakeQueries, FakeRecorder, FakeSender


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def recorder() -> FakeRecorder:
    return FakeRecorder()


@pytest.fixture
def queries() -> FakeQueries:
    return FakeQueries()


@pytest.fixture
def sender() -> FakeSender:
    return FakeSender()


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def paths() -> FakePaths:
    return FakePaths()
