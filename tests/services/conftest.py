from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.phantom import PhantomCohort, write_phantom_cohort


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> PhantomCohort:
    """Two patients of two sites, and one broken case."""
    return write_phantom_cohort(tmp_path_factory.mktemp("phantoms") / "cohort", patients=4, sites=2, broken=True)


@pytest.fixture
def case_dir(phantoms: PhantomCohort) -> Path:
    """A sound case folder of site_a."""
    return phantoms.cases[0].folder
