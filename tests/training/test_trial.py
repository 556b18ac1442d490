"""A trial changes the fields that it names and no others."""

from training.augment import Augmentation
from training.losses import LossWeights
from training.train import Schedule
from training.trial import changed


def test_a_change_is_applied_to_the_dataclass_with_that_field() -> None:
    changes = {"coherence": 1.0, "judged_frames": 100.0, "noise_share": 0.0}
    assert changed(LossWeights(), changes) == LossWeights(coherence=1.0)
    assert changed(Schedule(), changes) == Schedule(judged_frames=100) and changed(Schedule(), {}) == Schedule()
    assert isinstance(changed(Schedule(), changes).judged_frames, int)
    assert changed(Schedule(), {"decoder_only": 1.0}).decoder_only is True
    assert changed(Augmentation(), changes) == Augmentation(noise_share=0.0)
