"""DamageTokens is as large as its name says, is the same each time, and loses no more than it tells."""

import numpy as np
import pytest

from benchmarks.quality.damage import DAMAGES, damaged, flipping, losing

TOKENS = np.random.default_rng(1).integers(65_536, size=20_000).astype(np.uint16)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 1.0])
def test_the_given_share_of_bits_is_flipped_at_every_bit_position(share: float) -> None:
    arrived, lost = flipping(share, TOKENS, np.random.default_rng(0))
    flips = (arrived ^ TOKENS)[:, None] >> np.arange(16) & 1
    assert flips.mean() == pytest.approx(share, rel=0.05)
    assert flips.mean(axis=0) == pytest.approx(np.full(16, share), rel=0.25)
    assert not lost.any() and arrived.dtype == np.uint16


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_exactly_the_given_share_of_tokens_is_lost(share: float) -> None:
    arrived, lost = losing(share, TOKENS, np.random.default_rng(0))
    assert lost.mean() == pytest.approx(share, rel=0.15)
    assert (arrived == TOKENS).all()


def test_damage_to_a_recording_is_the_same_each_time_and_differs_from_the_next() -> None:
    for name in DAMAGES:
        (first, first_lost), (again, again_lost) = (damaged(name, "a.flac", TOKENS) for _ in range(2))
        other, other_lost = damaged(name, "b.flac", TOKENS)
        assert (first == again).all() and (first_lost == again_lost).all()
        assert (first != other).any() or (first_lost != other_lost).any()
