"""Asserts of the suites that are no test modules themselves say what they compared, as those of test modules do."""

import pytest

pytest.register_assert_rewrite("tests.conformance.etl_contract")
