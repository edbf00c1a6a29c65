"""Warnings about policies that collapse or miss their target."""

import pytest

from agents.alarms import COLLAPSED, MISSED, warn_if_collapsed, warn_if_missed


@pytest.mark.parametrize(("spread", "warned"), [(0.0, True), (0.9 * COLLAPSED, True), (1.1 * COLLAPSED, False)])
def test_decisions_that_are_the_same_for_all_images_are_called_collapsed(
    spread: float, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert warn_if_collapsed(7, spread, 0.7) == warned
    assert ("step 7: collapsed" in capsys.readouterr().out) == warned


@pytest.mark.parametrize(("share", "advice"), [(1.0006, "a higher --price"), (0.1, "a lower --price")])
def test_what_to_do_about_collapsed_decisions_hangs_on_what_they_keep(
    share: float, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_if_collapsed(7, 0.0, share)
    assert advice in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("share", "target", "warned"),
    [
        (0.6 + 1.1 * MISSED, 0.6, True),
        (0.6 - 1.1 * MISSED, 0.6, True),
        (0.6 + 0.9 * MISSED, 0.6, False),
        (0.9, None, False),
    ],
)
def test_a_share_far_from_the_target_is_told(
    share: float, target: float | None, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert warn_if_missed(share, target) == warned
    assert ("the target of 0.6" in " ".join(capsys.readouterr().out.split())) == warned
