"""`python -m training.base.train`: rows in, a checkpoint and a loss curve out.

Stops at a number of steps, or after so many minutes at work, in which the learning rate then falls by the clock.
Killed at any moment it goes on from its last checkpoint; with a number of steps, the losses are those of a run that
was never killed. With `--init FOLDER` it goes on from a model instead of from random weights. Of several `--rows` the
first must be whole, the others join once they are: training can begin while rows are still made.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .folder import TOKENIZER_FILES, load
from .model import IGNORED, Model
from .paths import alone_in, default_work, digest, write_atomically
from .rows import Rows
from .schedule import rate
from .sizes import PLANS, SHAPES, Plan, parameter_count
from .special import PAD
from .tokenizer import Vocabulary

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.jsonl"
# What the model card is written from.
RUN = "run.json"
# Validation rows of one forward pass.
VALID_ROWS_PER_PASS = 16


@dataclass
class State:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SHAPES), default="cpu")
    parser.add_argument("--rows", type=Path, nargs="+", default=[default_work().root / "rows"])
    parser.add_argument("--tokenizer", type=Path, default=default_work().tokenizer)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="folder of a model to go on from, of the same tokenizer")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float, help="stop after so much time at work instead, of all runs together")
    parser.add_argument("--muon-rate", type=float)
    parser.add_argument("--adam-rate", type=float)
    parser.add_argument("--decay-share", type=float)
    parser.add_argument("--warm-up-steps", type=int)
    parser.add_argument("--rows-per-step", type=int)
    parser.add_argument("--rows-per-pass", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--valid-every", type=int, default=100)
    parser.add_argument("--valid-rows", type=int, default=192, help="of each validation set, the first ones")
    parser.add_argument("--checkpoint-minutes", type=float, default=3)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--f32", action="store_true", help="no bf16 on this machine")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    names = ("steps", "muon_rate", "adam_rate", "decay_share", "warm_up_steps", "rows_per_step", "rows_per_pass")
    changed = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    plan = replace(PLANS[arguments.size], **changed)
    positive = {"--minutes": arguments.minutes, "--valid-every": arguments.valid_every, "--valid-rows": arguments.valid_rows,
                "--steps": plan.steps, "--rows-per-step": plan.rows_per_step, "--rows-per-pass": plan.rows_per_pass}  # fmt: skip
    if wrong := [name for name, value in positive.items() if value is not None and value <= 0]:
        parser.error(f"{wrong[0]} takes a number over 0")
    with alone_in(arguments.out):
        Run(arguments, plan).train()


class Run:
    """One training run and its folder."""

    def __init__(self, arguments: argparse.Namespace, plan: Plan) -> None:
        self.arguments, self.plan = arguments, plan
        self.out: Path = arguments.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        vocabulary = Vocabulary(arguments.tokenizer)
        self.rows = Rows(arguments.rows, vocabulary.special(PAD))
        check_tokenizer(self.rows, arguments.tokenizer)
        self.model = initial(arguments, vocabulary).to(self.device)
        if self.rows.row_tokens > self.model.shape.context_tokens:
            raise SystemExit(
                f"rows of {self.rows.row_tokens} tokens are longer than the context of this size, "
                f"{self.model.shape.context_tokens}; make shorter ones with prepare --row-tokens"
            )
        self.optimizers = optimizers(self.model, plan)
        self.peaks = [[group["lr"] for group in one.param_groups] for one in self.optimizers]
        self.state = State()
        self.is_stopping = False
        self.seen, self.joined = torch.zeros(self.rows.count, dtype=torch.int32), list(self.rows.joined)
        self.resume()
        for name in TOKENIZER_FILES:
            (self.out / name).write_bytes((arguments.tokenizer / name).read_bytes())
        # When the run would have begun, had it never stopped.
        self.begun = time.monotonic() - self.state.seconds
        self.reader = ThreadPoolExecutor(1)
        self.next = self.reader.submit(self.read, self.state.step)
        torch.set_float32_matmul_precision("high")
        compiled = self.device.type == "cuda" and not arguments.no_compile
        self.step_model = torch.compile(self.model) if compiled else self.model

    def train(self) -> None:
        """Runs to the end, or until a signal asks to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "is_stopping", True))
        print(f"{parameter_count(self.model.shape):,} parameters, {self.rows.count:,} rows, on {self.device}", flush=True)
        saved = time.monotonic()
        while self.progress() < 1 and not self.is_stopping:
            if self.state.step % self.arguments.valid_every == 0:
                self.log(self.valid())
            started = time.monotonic()
            loss, norm = self.step()
            elapsed = time.monotonic() - started
            self.state.step += 1
            self.state.tokens += self.plan.rows_per_step * self.rows.row_tokens
            self.log({"loss": round(loss, 5), "norm": round(norm, 4), "seconds": round(elapsed, 3)})
            if time.monotonic() - saved > 60 * self.arguments.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
        if not self.is_stopping:
            self.log(self.valid())
        self.save()
        if self.rows.waiting:
            print(f"rows that never came: {', '.join(str(folder) for folder in self.rows.waiting)}")
        print("stopped; run again to go on" if self.is_stopping else "done", flush=True)

    def progress(self) -> float:
        """How much of the run is over."""
        self.state.seconds = time.monotonic() - self.begun
        if self.arguments.minutes:
            return self.state.seconds / (60 * self.arguments.minutes)
        return self.state.step / self.plan.steps

    def step(self) -> tuple[float, float]:
        """One step of the optimisers; gives the loss over its targets and the gradient's norm."""
        ids, targets, self.seen, self.joined = self.next.result()
        # The next rows are read while this step computes.
        self.next = self.reader.submit(self.read, self.state.step + 1)
        counted = (targets != IGNORED).sum().item()
        # On the device, so that no pass waits for the one before.
        total = torch.zeros((), device=self.device)
        for start in range(0, len(ids), self.plan.rows_per_pass):
            part = slice(start, start + self.plan.rows_per_pass)
            share = (targets[part] != IGNORED).sum().item() / counted
            with self.autocast():
                loss = self.step_model(self.moved(ids[part]), self.moved(targets[part])) * share
            loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        share = rate(self.state.step, self.plan.warm_up_steps, self.progress(), self.plan.decay_share)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return total.item(), norm.item()

    def read(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
        """Inputs and targets of a step, how often each row has been seen with it, and the folders of those rows."""
        self.rows.refresh()
        ids, targets = self.rows.step(step, self.plan.rows_per_step, self.arguments.seed)
        return ids, targets, torch.from_numpy(self.rows.seen.astype(np.int32)), list(self.rows.joined)

    def moved(self, block: torch.Tensor) -> torch.Tensor:
        return block.to(self.device, non_blocking=True)

    def autocast(self):
        return nullcontext() if self.arguments.f32 else torch.autocast(self.device.type, torch.bfloat16)

    @torch.no_grad()
    def valid(self) -> dict:
        """Losses on held-out rows, plain and rearranged."""
        found = {}
        for name in self.rows.first["valid"]:
            ids, targets = (block[: self.arguments.valid_rows] for block in self.rows.valid(name))
            total = counted = 0.0
            for start in range(0, len(ids), VALID_ROWS_PER_PASS):
                part = slice(start, start + VALID_ROWS_PER_PASS)
                count = (targets[part] != IGNORED).sum().item()
                with self.autocast():
                    total += self.model(self.moved(ids[part]), self.moved(targets[part])).item() * count
                counted += count
            found[name] = round(total / max(counted, 1), 5)
        return found

    def log(self, figures: dict) -> None:
        """One line of the curve."""
        line = {"step": self.state.step, "tokens": self.state.tokens, **figures}
        with (self.out / CURVE).open("a") as curve:
            curve.write(json.dumps(line) + "\n")
        if self.state.step % 20 == 0 or "loss" not in figures:
            print(line, flush=True)

    def save(self) -> None:
        """The checkpoint, replaced in one step."""
        content = {
            "model": self.model.state_dict(), "optimizers": [one.state_dict() for one in self.optimizers],
            "state": asdict(self.state), "shape": asdict(self.model.shape), "seen": self.seen,
            "tokenizer": self.rows.tokenizer, "joined": self.joined, "plan": asdict(self.plan), "seed": self.arguments.seed,
        }  # fmt: skip
        beside = self.out / (CHECKPOINT + ".part")
        torch.save(content, beside)
        beside.replace(self.out / CHECKPOINT)
        told = {
            "state": asdict(self.state), "shape": asdict(self.model.shape), "plan": asdict(self.plan),
            "minutes": self.arguments.minutes, "init": str(self.arguments.init or ""), "device": device_name(self.device),
            # Index: times seen; value: how many rows were. Rows that joined after the last step count as not seen.
            "rows_seen": np.bincount(self.seen.numpy()).tolist(), "taste": self.rows.first["taste"],
            "counts": dict(self.rows.counts),
        }  # fmt: skip
        write_atomically(self.out / RUN, (json.dumps(told, indent=1) + "\n").encode())

    def resume(self) -> None:
        """Goes on from the checkpoint, if there is one; the curve forgets what came after it."""
        path = self.out / CHECKPOINT
        curve = self.out / CURVE
        if not path.exists():
            curve.unlink(missing_ok=True)
            return
        content = torch.load(path, map_location=self.device, weights_only=True)
        if content["tokenizer"] != self.rows.tokenizer or content["shape"] != asdict(self.model.shape):
            raise SystemExit(f"{path} is of another tokenizer or --size; give another --out, or delete {self.out}")
        self.model.load_state_dict(content["model"])
        for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        # How long a run is may change; what it does may not, or the card would tell one thing of two.
        before, now = content["plan"] | {"seed": content["seed"]}, asdict(self.plan) | {"seed": self.arguments.seed}
        if other := [f"{name} {before[name]}" for name in now if name != "steps" and before[name] != now[name]]:
            raise SystemExit(f"{path} was trained with {', '.join(other)}; go on with the same, or give another --out")
        self.state = State(**content["state"])
        self.seen = content["seen"].cpu()
        self.rows.restore(self.seen, content["joined"])
        whole = [line for line in curve.read_text().splitlines() if line.endswith("}")]
        lines = [line for line in whole if is_before(json.loads(line), self.state.step)]
        write_atomically(curve, "".join(line + "\n" for line in lines).encode())
        print(f"going on from step {self.state.step}", flush=True)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def is_before(line: dict, step: int) -> bool:
    """Whether a line of the curve was written before the checkpoint at `step`: validation comes first in a step."""
    return line["step"] < step or line["step"] == step and "loss" in line


def check_tokenizer(rows: Rows, tokenizer: Path) -> None:
    if digest(tokenizer / "tokenizer.json") != rows.tokenizer:
        raise SystemExit(f"the rows of {rows.folders[0]} were made with another tokenizer than {tokenizer}")


def initial(arguments: argparse.Namespace, vocabulary: Vocabulary) -> Model:
    """Random weights of the size, or those of `--init`."""
    if not arguments.init:
        return Model(replace(SHAPES[arguments.size], vocab_size=vocabulary.size), arguments.seed)
    model = load(arguments.init)
    same = (arguments.init / "tokenizer.json").read_bytes() == (arguments.tokenizer / "tokenizer.json").read_bytes()
    if not same:
        raise SystemExit(f"{arguments.init} has another tokenizer than {arguments.tokenizer}")
    return model


def optimizers(model: Model, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.dim() != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=plan.muon_rate, weight_decay=plan.weight_decay, momentum=0.95, nesterov=True),
        torch.optim.AdamW(others, lr=plan.adam_rate, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, fused=True),
    ]


if __name__ == "__main__":
    main()
