"""One tiny shop for all end-to-end tests; each works on a copy of it."""

from __future__ import annotations

import shutil

import pytest

from infra.settings import Home
from tests.e2e.shop_process import make_shop


@pytest.fixture(scope="session")
def first_shop(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a history and a first release, made without its truth; not to be changed."""
    return make_shop(tmp_path_factory.mktemp("shop") / "home")


@pytest.fixture
def shop(first_shop: Home, home: Home) -> Home:
    """A copy of it."""
    shutil.copytree(first_shop.root, home.root, dirs_exist_ok=True)
    return home
