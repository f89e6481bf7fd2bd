"""The comparison's cases and ratios."""

from transom.bench.suite.cases import GRANIAN, GROUPS, RATIOS, SIZES, cases
from transom.bench.suite.ratios import Figures, outcomes, to_json


def figures(*rates):
    return Figures(ops_per_s=list(rates), mib_per_s=list(rates))


def test_every_ratio_names_measured_cases():
    measured = {(case.name, peer) for case in cases(list(SIZES), GROUPS) for peer in case.peers}
    for ratio in RATIOS:
        assert ratio.over in measured
        assert ratio.under in measured


def test_cases_are_chosen_by_size_and_group():
    assert [case.name for case in cases(["1MiB"], ("get", "cached"))] == ["get 1MiB", "cached 1MiB"]


def test_ratio_is_the_median_of_the_rounds_own_ratios():
    results = {("get 100KiB", GRANIAN): figures(10, 30, 90), ("get 100KiB", "rclone"): figures(10, 20, 100)}
    (outcome,) = outcomes(results)
    assert outcome.value == 1.0
    assert outcome.verdict == "met"


def test_missed_target_is_said():
    results = {("get 4KiB", GRANIAN): figures(4.0), ("get 4KiB", "rclone"): figures(10.0)}
    data = to_json(results, outcomes(results), {"rounds": 1})
    assert data["ratios"] == [
        {"name": "get 4KiB: transom / rclone", "value": 0.4, "rounds": [0.4], "target": 0.5, "met": False}
    ]
    assert data["measurements"][0]["ops_per_s"] == 4.0


def test_figures_that_are_missing_give_no_ratio():
    assert outcomes({("get 4KiB", GRANIAN): figures(4.0), ("get 4KiB", "rclone"): Figures(error="refused")}) == []
