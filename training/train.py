"""Trains `nano`: `python -m training.train --data FOLDER --work FOLDER --seed 0`.

Prepares the data if needed, logs to `log.jsonl` and `curves.png`, keeps `checkpoint.pt` in the work folder, and
continues from it when restarted. The loss is reconstruction alone at first; then the judges are trained together with
the model, and add an adversarial loss. Step n draws its batch from (seed, n), so an interrupted run sees the same crops
as an uninterrupted one. The moving average of the weights is exported later.
"""

import argparse
import json
import math
import time
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import NeuCodecModel

from training.augment import Augmentation, augmented
from training.data import HOP_IN, HOP_OUT, Batch, Speech, prepare
from training.discriminators import (
    Judges,
    adversarial_loss,
    below_bandwidth,
    drawn_sitting,
    feature_loss,
    judging_loss,
)
from training.losses import RESOLUTIONS, LossWeights, losses, total
from training.model import DECODER_LAYERS, LiveCrop, freeze_encoder, mean_weights, new_model, reconstruct, take_weights
from training.recogniser import recogniser_loss
from training.validate import plot, validate
from training.windows import Windows, no_priors, read_priors

BUNDLED = Path("streaming/assets/nano")
LENGTHS_FRAMES = (15, 30, 60, 100, 150, 200)
LENGTH_SHARES = (0.05, 0.10, 0.15, 0.25, 0.25, 0.20)
JUDGED_FLOOR = 1e-3
LOG_EVERY = 25
CHECKPOINT_EVERY = 250
PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class Schedule:
    steps: int = 20_000
    decoder_layers: int = DECODER_LAYERS
    decoder_only: bool = False
    adversarial_from: int = 12_000
    warmup_steps: int = 300
    frames_per_batch: int = 400
    judged_frames: int = 60
    peak_rate: float = 6e-4
    final_rate: float = 1e-5
    judge_rate: float = 2e-4
    weight_decay: float = 0.01
    gradient_norm: float = 1.0
    average: float = 0.999
    resolutions_a_step: int = 2
    live_share: float = 0.7
    live_chunk_frames: tuple[int, int] = (4, 12)
    live_lookahead_frames: tuple[int, int] = (1, 10)
    damaged_share: float = 0.1
    damaged_bits: tuple[float, float] = (0.005, 0.03)
    gain_db: tuple[float, float] = (-20.0, 3.0)
    ends_share: float = 0.3
    coherence_push: tuple[tuple[int, float], ...] = ((250, 15.0), (500, 3.0))

    def rate(self, step: int, progress: float) -> float:
        """Linear warm-up, then half a cosine to the final rate; `progress` is a share of the run."""
        if step < self.warmup_steps:
            return self.peak_rate * (step + 1) / self.warmup_steps
        return self.final_rate + (self.peak_rate - self.final_rate) * 0.5 * (1.0 + math.cos(math.pi * progress))

    def push(self, step: int) -> float:
        """Until the tokens encode phase, the other terms' gradients dominate that of the coherence term."""
        return next((factor for until, factor in self.coherence_push if step < until), 1.0)


class Trainer:
    def __init__(
        self, work: Path, schedule: Schedule, weights: LossWeights, seed: int, device: str = "cpu", mixed: bool = False
    ) -> None:
        self.work, self.schedule, self.weights, self.seed, self.device = work, schedule, weights, seed, device
        self.mixed = mixed
        self.priors = no_priors(device)
        self.change = partial(augmented, how=Augmentation())
        self.speech = Speech(work, held_out=False)
        torch.manual_seed(seed)
        heard = self.speech.batch(np.random.default_rng(seed), 8, 100, (-6.0, 0.0)).heard
        self.model = new_model(heard, device == "cpu", schedule.decoder_layers).to(device)
        if schedule.decoder_only:
            freeze_encoder(self.model)
        self.judges = Judges().to(device)
        self.average: NeuCodecModel = deepcopy(self.model).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=0.0,
            betas=(0.9, 0.99),
            weight_decay=schedule.weight_decay,
            fused=True,
        )
        self.judge_optimiser = torch.optim.AdamW(
            self.judges.parameters(), lr=schedule.judge_rate, betas=(0.8, 0.99), weight_decay=0.0, fused=True
        )
        self.step = 0

    def advance(self, progress: float) -> dict[str, float]:
        """`progress` is a share of the run, from 0 to 1; returns the loss terms and the norm of the gradient."""
        rng = np.random.default_rng([self.seed, self.step])
        torch.manual_seed(int(rng.integers(2**31)))
        batch = self._batch(rng)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(self.step, progress)
        live = self._live(rng, len(batch.heard), batch.target.shape[1] // HOP_OUT)
        result = reconstruct(self.model, batch.heard, self.mixed, live)
        resolutions = rng.permutation(len(RESOLUTIONS))[: self.schedule.resolutions_a_step]
        chosen = tuple(RESOLUTIONS[i] for i in resolutions)
        terms = losses(result.audio, batch.target, batch.bandwidth_hz, result.projected, chosen)
        if self.weights.recogniser:
            # Its frames are as long as tokens: if they began together, its gradient would repeat in every token.
            start = int(rng.integers(HOP_OUT))
            said, recorded = result.audio[:, start:], batch.target[:, start:]
            terms["recogniser"] = recogniser_loss(said, recorded, batch.bandwidth_hz, self.mixed)
        weights = replace(self.weights, coherence=self.weights.coherence * self.schedule.push(self.step))
        loss = total(terms, weights)
        scalars = {name: float(value.detach()) for name, value in terms.items()}
        if self.step >= self.schedule.adversarial_from:
            convincing, verdict = self._judge(rng, result.audio, batch)
            loss = loss + convincing
            scalars |= verdict
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.gradient_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"gradient norm is {norm} at step {self.step}; lower the learning rate")
        self.optimiser.step()
        self._update_average()
        self.step += 1
        return scalars | {"gradient": float(norm)}

    def _judge(self, rng: np.random.Generator, audio: Tensor, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Lets the judges rate a piece of the batch and learn from it; returns a term of the model's loss, and the
        losses.

        Both sides learn from the same verdict, so that each judge sees each side once. The term is the product of the
        audio and the judges' gradient with respect to it: it has that gradient, but its value is meaningless.
        """
        length = min(audio.shape[1], self.schedule.judged_frames * HOP_OUT // 2)
        rows = max(1, self.schedule.judged_frames * HOP_OUT // length)
        start = int(rng.integers(0, audio.shape[1] - length + 1))
        piece, bandwidth_hz = audio[:rows, start : start + length], batch.bandwidth_hz[:rows]
        heard = piece.detach().requires_grad_()
        recorded, said = (
            below_bandwidth(x, bandwidth_hz) for x in (batch.target[:rows, start : start + length], heard)
        )
        level = recorded.square().mean(dim=1, keepdim=True).sqrt() + JUDGED_FLOOR
        sitting = drawn_sitting(rng)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.mixed):
            real = self.judges(recorded / level, bandwidth_hz, sitting)
            verdicts = self.judges(said / level, bandwidth_hz, sitting)
        judging = judging_loss(real, verdicts)
        adversarial, features = adversarial_loss(verdicts), feature_loss(real, verdicts)
        convincing = self.weights.adversarial * adversarial + self.weights.features * features
        (gradient,) = torch.autograd.grad(convincing, heard, retain_graph=True)
        self.judge_optimiser.zero_grad()
        judging.backward(inputs=list(self.judges.parameters()))
        torch.nn.utils.clip_grad_norm_(self.judges.parameters(), self.schedule.gradient_norm)
        self.judge_optimiser.step()
        scalars = {"judging": judging, "adversarial": adversarial, "features": features}
        return (piece * gradient).sum(), {name: float(value.detach()) for name, value in scalars.items()}

    def _live(self, rng: np.random.Generator, rows: int, frames: int) -> LiveCrop | None:
        """Draws streaming effects for some of the steps, two thirds of them with at most three frames of lookahead.

        A chunk is at least as long as the lookahead, to limit the cost.
        """
        if rng.random() >= self.schedule.live_share:
            return None
        least, most = self.schedule.live_lookahead_frames
        lookahead = least + int((most - least + 1) * rng.random() ** 3)
        shortest, longest = self.schedule.live_chunk_frames
        chunk = int(rng.integers(max(shortest, lookahead), longest, endpoint=True))
        hit = rng.random(rows) < self.schedule.damaged_share / self.schedule.live_share
        flipped = torch.from_numpy(hit * rng.uniform(*self.schedule.damaged_bits, rows)).to(self.device)
        return LiveCrop(Windows(chunk, lookahead, frames, self.device), self.priors, flipped)

    def start_from(self, start: Path, *others: Path) -> None:
        """Starts from a model folder, or from the mean of checkpoints of other runs, with the judges of the first.

        Prefer checkpoints: an exported head is louder than training makes it. Raises OSError if there is neither.
        """
        if start.is_dir() and not others:
            weights = NeuCodecModel.from_pretrained(start, dtype=torch.float32).state_dict()
            priors = start / "stream.json"
        else:
            contents = [torch.load(path, weights_only=True) for path in (start, *others)]
            weights, priors = mean_weights([content["average"] for content in contents]), BUNDLED / "stream.json"
            self.judges.load_state_dict(contents[0]["judges"])
            self.judge_optimiser.load_state_dict(contents[0]["judge_optimiser"])
        for model in (self.model, self.average):
            take_weights(model, weights)
        if priors.exists():
            self.priors = read_priors(priors, self.device)

    def save(self, progress: float) -> None:
        """Atomic: after an interruption the old or the new checkpoint is complete."""
        content = {
            "step": self.step,
            "progress": progress,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "judges": self.judges.state_dict(),
            "judge_optimiser": self.judge_optimiser.state_dict(),
        }
        torch.save(content, self.work / "checkpoint.tmp")
        (self.work / "checkpoint.tmp").replace(self.work / "checkpoint.pt")

    def restore(self) -> float:
        """Returns the completed share of the run, 0 without a checkpoint."""
        path = self.work / "checkpoint.pt"
        if not path.exists():
            return 0.0
        content = torch.load(path, weights_only=True)
        for part in ("model", "average", "optimiser", "judges", "judge_optimiser"):
            getattr(self, part).load_state_dict(content[part])
        self.step = content["step"]
        return content["progress"]

    def _batch(self, rng: np.random.Generator) -> Batch:
        frames = int(rng.choice(LENGTHS_FRAMES, p=LENGTH_SHARES))
        crops = max(1, self.schedule.frames_per_batch // frames)
        batch = self.speech.batch(rng, crops, frames, self.schedule.gain_db, self.change)
        if rng.random() < self.schedule.ends_share:
            batch.heard[:, frames * HOP_IN :] = 0.0  # as at the end of a recording
        return Batch(*(x.to(self.device) for x in (batch.heard, batch.target, batch.bandwidth_hz)))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.schedule.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1.0 - decay)


@dataclass(frozen=True)
class RunLength:
    """`minutes` of this process if given, else `steps`.

    The run pauses while `pause_file` exists; pauses count towards the minutes.
    """

    steps: int
    minutes: float | None = None
    pause_file: Path | None = None
    started: float = field(default_factory=time.monotonic)
    progress: float = 0.0

    def spent(self, step: int) -> float:
        """A share from 0 to 1."""
        if self.minutes is None:
            return min(1.0, step / self.steps)
        elapsed = (time.monotonic() - self.started) / 60.0 / self.minutes
        return min(1.0, self.progress + (1.0 - self.progress) * elapsed)

    def wait(self) -> None:
        while self.pause_file is not None and self.pause_file.exists():
            time.sleep(PAUSE_SECONDS)


def run(trainer: Trainer, budget: RunLength, validate_every: int) -> None:
    held_out = Speech(trainer.work, held_out=True)
    with (trainer.work / "log.jsonl").open("a", buffering=1) as log:
        if trainer.step == 0:
            log.write(json.dumps({"step": 0} | validate(trainer.average, held_out)) + "\n")
        sums: dict[str, list[float]] = {}
        seconds = 0.0
        while (progress := budget.spent(trainer.step)) < 1.0:
            budget.wait()
            started = time.process_time()
            for name, value in trainer.advance(progress).items():
                sums.setdefault(name, []).append(value)
            seconds += time.process_time() - started
            step, is_last = trainer.step, budget.spent(trainer.step) >= 1.0
            if step % LOG_EVERY == 0:
                rate = trainer.schedule.rate(step, progress)
                entry = {"step": step, "rate": rate, "progress": progress, "core_seconds": seconds / LOG_EVERY}
                entry |= {name: float(np.mean(values)) for name, values in sums.items()}
                log.write(json.dumps({k: round(v, 6) for k, v in entry.items()}) + "\n")
                sums, seconds = {}, 0.0
            if step % CHECKPOINT_EVERY == 0 or is_last:
                trainer.save(progress)
            if step % validate_every == 0 or is_last:
                log.write(json.dumps({"step": step} | validate(trainer.average, held_out)) + "\n")
                plot(trainer.work / "log.jsonl", trainer.work / "curves.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled model nano.")
    parser.add_argument("--data", type=Path, required=True, help="any folder of audio, or one with MANIFEST.tsv")
    parser.add_argument("--work", type=Path, default=Path("training/run"), help="for cache, log and checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start", type=Path, nargs="+", help="model folder, or checkpoints whose mean it is (default: random)"
    )
    parser.add_argument("--decoder-only", action="store_true", help="freeze the encoder, keep tokens compatible")
    parser.add_argument("--decoder-layers", type=int, default=DECODER_LAYERS, help="at least those of --start")
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--adversarial-from", type=int, default=Schedule.adversarial_from, help="first judged step")
    parser.add_argument("--no-push", action="store_true", help="if the tokens of --start already encode phase")
    parser.add_argument("--peak-rate", type=float, default=Schedule.peak_rate)
    parser.add_argument("--average", type=float, default=Schedule.average, help="decay of the moving average per step")
    parser.add_argument("--validate-every", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="duration of the run, instead of --steps")
    parser.add_argument("--pause-file", type=Path, help="pause while this file exists")
    parser.add_argument("--mixed", action="store_true", help="use bfloat16, faster on a GPU or a CPU with avx512_bf16")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    prepare(arguments.data, arguments.work)
    schedule = Schedule(
        arguments.steps,
        arguments.decoder_layers,
        arguments.decoder_only,
        arguments.adversarial_from,
        peak_rate=arguments.peak_rate,
        average=arguments.average,
    )
    if arguments.no_push:
        schedule = replace(schedule, coherence_push=())
    trainer = Trainer(arguments.work, schedule, LossWeights(), arguments.seed, arguments.device, arguments.mixed)
    if arguments.start:
        trainer.start_from(*arguments.start)
    progress = trainer.restore()
    budget = RunLength(arguments.steps, arguments.minutes, arguments.pause_file, progress=progress)
    run(trainer, budget, arguments.validate_every)


if __name__ == "__main__":
    main()
