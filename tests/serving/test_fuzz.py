"""Requests made up from the service's own description find no fault of it."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from ovseg.serving.limits import Limits
from ovseg.serving.service import service
from tests.serving.conftest import QuickModel

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")


class QuickestModel(QuickModel):
    side = 32


SCHEMA = schemathesis.openapi.from_asgi(
    "/openapi.json", service(QuickestModel("cpu"), Limits(body=100_000))
)


@SCHEMA.parametrize()
@settings(
    max_examples=10,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_no_request_breaks_it(case: Any) -> None:
    # No schema says what an image is, that no class may be named twice, or that 0 is false.
    case.call_and_validate(
        excluded_checks=[checks.positive_data_acceptance, checks.negative_data_rejection]
    )
