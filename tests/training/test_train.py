"""Training resumes from a checkpoint as if it had never stopped, and its export loads and stays within the budget."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import NeuCodecModel

from training.cost import cost
from training.data import Recording
from training.export import export, missing_level_db
from training.losses import LossWeights
from training.model import WEIGHTS_VERSION, quantiser_input, reconstruct
from training.train import RunLength, Schedule, Trainer

SCHEDULE = Schedule(steps=10, adversarial_from=1, warmup_steps=2, frames_per_batch=30, judged_frames=10)
WEIGHTS = LossWeights(recogniser=0.0)  # `dev` does not install its network


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    for name, hop in (("heard", 320), ("target", 480)):
        (folder / f"{name}.i16").write_bytes(rng.integers(-3000, 3000, 300 * hop).astype(np.int16).tobytes())
    (folder / "index.json").write_text(json.dumps([vars(Recording("a.wav", "librispeech", "a", 8000, 0, 300, False))]))
    return folder


@pytest.mark.slow
def test_an_interrupted_run_equals_an_uninterrupted_one(work: Path) -> None:
    torch.set_num_threads(1)
    whole = Trainer(work, SCHEDULE, WEIGHTS, seed=1)
    first = Trainer(work, SCHEDULE, WEIGHTS, seed=1)
    for _ in range(2):
        whole.advance(0.0)
        first.advance(0.0)
    first.save(0.25)
    second = Trainer(work, SCHEDULE, WEIGHTS, seed=2)
    second.seed = 1
    assert second.restore() == 0.25
    assert second.step == 2
    assert second.advance(0.0) == pytest.approx(whole.advance(0.0), rel=1e-4)


def test_the_rate_warms_up_and_ends_at_its_final_value() -> None:
    schedule = Schedule()
    rates = [schedule.rate(step, step / schedule.steps) for step in range(0, schedule.steps + 1, 10)]
    assert max(rates) == pytest.approx(schedule.peak_rate, rel=0.02)
    assert rates[0] < 0.01 * schedule.peak_rate
    assert rates[-1] == pytest.approx(schedule.final_rate)


def test_a_run_of_minutes_resumes_at_the_checkpoints_progress() -> None:
    assert RunLength(steps=10).spent(5) == 0.5
    assert RunLength(steps=10, minutes=60.0, progress=0.25).spent(step=9) == pytest.approx(0.25, abs=1e-3)
    assert RunLength(steps=10, minutes=1e-9, progress=0.25).spent(step=0) == 1.0


def test_the_coherence_weight_is_higher_at_the_start() -> None:
    schedule = Schedule(coherence_push=((10, 15.0), (20, 3.0)))
    assert [schedule.push(step) for step in (0, 9, 10, 19, 20, 1_000)] == [15.0, 15.0, 3.0, 3.0, 1.0, 1.0]


@pytest.mark.slow
def test_an_export_loads_and_keeps_within_the_budget(work: Path, tmp_path: Path) -> None:
    trainer = Trainer(work, SCHEDULE, WEIGHTS, seed=1)
    trainer.save(0.0)
    missing_db = missing_level_db(trainer.average, trainer.speech)
    assert export([work / "checkpoint.pt"], trainer.speech, tmp_path) == {
        "step": 0,
        "added_db": pytest.approx(missing_db),
    }
    model = NeuCodecModel.from_pretrained(tmp_path, dtype=torch.float32)
    assert model.config.weights_version == WEIGHTS_VERSION
    for name, parameter in model.named_parameters():
        if name != "acoustic_decoder.head.linear.bias":
            torch.testing.assert_close(parameter.half(), trainer.average.get_parameter(name).half(), msg=name)
    assert missing_level_db(model, trainer.speech) == pytest.approx(0.0, abs=0.1)
    table = cost(tmp_path)
    assert table["total"]["mflop_per_s"] < 2000.0
    assert table["total"]["shipped_mb"] < 24.0


@pytest.mark.slow
def test_another_run_starts_from_the_average_and_the_judges_of_a_checkpoint(work: Path) -> None:
    first, second = (Trainer(work, SCHEDULE, WEIGHTS, seed=seed) for seed in (1, 2))
    first.advance(0.0)
    first.save(0.5)
    second.start_from(work / "checkpoint.pt")
    assert second.step == 0 and second.priors.frames > 0
    for mine, theirs in ((second.model, first.average), (second.average, first.average), (second.judges, first.judges)):
        for here, there in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(here, there, atol=0, rtol=0)


@pytest.mark.slow
def test_a_run_starts_from_the_mean_of_two_and_the_judges_of_the_first(work: Path, tmp_path: Path) -> None:
    first, second, third = (Trainer(work, SCHEDULE, WEIGHTS, seed=seed) for seed in (1, 2, 3))
    paths = []
    for trainer in (first, second):
        trainer.save(0.5)
        paths.append((work / "checkpoint.pt").rename(tmp_path / f"{trainer.seed}.pt"))
    third.start_from(*paths)
    for mine, one, other in zip(*(x.average.parameters() for x in (third, first, second)), strict=True):
        torch.testing.assert_close(mine, (one + other) / 2)
    for here, there in zip(third.judges.parameters(), first.judges.parameters(), strict=True):
        torch.testing.assert_close(here, there, atol=0, rtol=0)


@pytest.mark.slow
def test_a_run_of_the_decoder_alone_leaves_the_tokens_as_they_are(work: Path) -> None:
    trainer = Trainer(work, replace(SCHEDULE, decoder_only=True, peak_rate=0.1), WEIGHTS, seed=1)
    heard = trainer.speech.batch(np.random.default_rng(0), 1, 20, (0.0, 0.0)).heard

    def coded() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            return quantiser_input(trainer.model, heard), reconstruct(trainer.model, heard).audio

    before = coded()
    trainer.advance(0.0)
    after = coded()
    torch.testing.assert_close(after[0], before[0], atol=0, rtol=0)
    assert (after[1] - before[1]).abs().max() > 0.0


@pytest.mark.slow
def test_an_export_of_two_runs_has_the_mean_of_their_weights(work: Path, tmp_path: Path) -> None:
    trainer = Trainer(work, SCHEDULE, WEIGHTS, seed=1)
    paths = []
    for factor in (1.0, 3.0):
        trainer.average.fc_encoder.weight.mul_(factor)
        trainer.save(0.0)
        paths.append((work / "checkpoint.pt").rename(tmp_path / f"{factor}.pt"))
    export(paths, trainer.speech, tmp_path / "out")
    model = NeuCodecModel.from_pretrained(tmp_path / "out", dtype=torch.float32)
    expected = trainer.average.fc_encoder.weight * (2.0 / 3.0)
    torch.testing.assert_close(model.fc_encoder.weight, expected.half().float())


def test_exporting_without_a_checkpoint_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train first"):
        export([tmp_path / "checkpoint.pt"], None, tmp_path / "out")
