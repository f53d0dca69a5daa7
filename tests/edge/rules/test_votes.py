import pytest
from ppe_edge.rules.config import RuleConfig
from ppe_edge.rules.votes import required_rate


@pytest.mark.parametrize(
    ("fps", "seconds", "expected"),
    [
        (None, 1.5, 2 / 1.5),
        (8.0, 1.5, 4.0),
        (1.0, 1.5, 0.8),  # the setting is below what the rule would need: a decision of the user
        (2.0, 1.5, 2 / 1.5),
        (None, None, 0.2),
        (None, 60.0, 0.2),
    ],
)
def test_required_rate_follows_from_setting_and_rule(fps: float | None, seconds: float | None, expected: float) -> None:
    assert required_rate(RuleConfig(seconds=seconds), fps) == pytest.approx(expected)
