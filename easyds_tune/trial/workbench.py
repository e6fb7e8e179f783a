"""What a worker keeps between trials: the base, the tokenizer, the data and the judge."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel

from easyds_tune.algorithms.row import TrialInputs
from easyds_tune.data.records import Prompt, Record
from easyds_tune.data.template import choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.data.training_sets import (
    Fitted,
    dpo_dataset,
    fit,
    ppo_dataset,
    reward_dataset,
    sft_dataset,
)
from easyds_tune.errors import DataError
from easyds_tune.judge.judge import Judge
from easyds_tune.models.deepspeed import start_distributed
from easyds_tune.models.generate import end_token_ids
from easyds_tune.models.load import ModelKind, load_model, load_with_fresh
from easyds_tune.models.start import load_start_tokenizer, start_of
from easyds_tune.rewards.reward_model import RewardModel
from easyds_tune.rewards.shared_base import shares_base
from easyds_tune.spec.algorithm import PPOSpec, length_field, length_limit
from easyds_tune.spec.deepspeed import deepspeed_config, zero_stage
from easyds_tune.spec.judge import JudgeSpec, RewardModelRewardSpec
from easyds_tune.spec.sweep import SweepSpec, TrialSpec
from easyds_tune.trial.memory import return_free_memory
from easyds_tune.trial.records import SweepRecords

ENCODE: dict[str, Callable[[Any, Encoder], Fitted]] = {
    "sft": sft_dataset,
    "rm": reward_dataset,
    "dpo": dpo_dataset,
    "ppo": ppo_dataset,
}

FINALS_DRAWS = 0xF17A15
"""Set beside the judge's seed for the finals: other luck than the search had."""


def open_workbench(sweep: SweepSpec, records: SweepRecords, gpus: float, threads: int) -> Workbench:
    """A workbench on this process's slot: its GPU or share of one, or CPU threads.

    gpus: share of a GPU, 0 for none; a fraction limits the memory this process can take.
    """
    torch.set_num_threads(threads)
    device = torch.device("cuda", 0) if gpus else torch.device("cpu")
    if 0 < gpus < 1:
        # Ray's fractions are bookkeeping; this is what keeps a trial inside its share.
        torch.cuda.set_per_process_memory_fraction(gpus, device)
    return Workbench(sweep, records, device)


class Workbench:
    """Loads once what all trials of a sweep share, and lends it to one trial at a time.

    A trial leaves nothing behind: the same trial gives the same bits on a fresh workbench and on
    one that served other trials. The base is loaded again only where a trial could not give it
    back as it was: after ZeRO-3, after full fine-tuning, and after an exception.
    """

    def __init__(self, sweep: SweepSpec, records: SweepRecords, device: torch.device) -> None:
        start_distributed(device)
        self.device = device
        self._sweep = sweep
        self._kind: ModelKind = "reward" if sweep.algorithm.type == "rm" else "causal"
        self._start = start_of(sweep.model)
        self.tokenizer = load_start_tokenizer(self._start)
        self.encoder = Encoder(
            self.tokenizer, choose_template(self.tokenizer, sweep.data.chat_template)
        )
        self._prompts = records.prompts
        self._finals_prompts = records.finals_prompts
        self._finals_held_out = records.finals_held_out
        self._rewards: dict[RewardModelRewardSpec, RewardModel] = {}
        self._base: PreTrainedModel | None = self._new_base()
        self._train: Dataset = ENCODE[sweep.algorithm.type](records.train, self.encoder).dataset
        self.held_out = self._encode_held_out(records.held_out)
        self._lent = 0

    def _encode_held_out(self, records: list[Record]) -> Dataset | None:
        """One set for all trials, whatever length each trains on: only so do they compare.

        A margin of a held-out pair has no part in its loss.
        """
        if not records:
            return None
        algorithm = self._sweep.algorithm
        return fit(ENCODE[algorithm.type](records, self.encoder).dataset, algorithm).dataset

    def _load(self) -> PreTrainedModel:
        base, self._fresh_modules = load_with_fresh(self._start.base, self._kind, self.device)
        base.config.get_text_config().pad_token_id = self.tokenizer.pad_token_id
        return base

    def _new_base(self) -> PreTrainedModel:
        """A base to train on, with the rewards that stand on it, and the judge that uses one."""
        base = self._load()
        kept = {spec: reward for spec, reward in self._rewards.items() if not self._is_shared(spec)}
        self._rewards = kept | {
            spec: RewardModel(
                spec, self.device, base.dtype, base=base if self._is_shared(spec) else None
            )
            for spec in _reward_specs(self._sweep)
            if spec not in kept
        }
        self.judge = self._make_judge(base)
        return base

    def _is_shared(self, reward: RewardModelRewardSpec) -> bool:
        rank = self._sweep.search_space.get("model.lora_r")
        if rank is not None and None in rank.end_points():
            return False  # a trial that trains every weight would change the reward
        return shares_base(reward, self._start.base)

    def _make_judge(self, base: PreTrainedModel) -> Judge | None:
        judge = self._sweep.judge
        return None if judge is None else self._judge_of(judge, self._prompts, base)

    def _judge_of(
        self,
        judge: JudgeSpec,
        prompts: list[Prompt],
        base: PreTrainedModel,
        seed: tuple[int, ...] | None = None,
    ) -> Judge:
        return Judge(
            judge,
            prompts,
            self.encoder,
            self._rewards[judge.reward],
            end_token_ids=end_token_ids(base, self.tokenizer),
            seed=seed,
        )

    @contextmanager
    def borrow(self) -> Iterator[PreTrainedModel]:
        """The base, plain, for whoever gives it back as it was; after an exception it is reloaded.

        Not while a trial has it.
        """
        self._tidy()
        base = self._base if self._base is not None else self._new_base()
        self._base = None
        yield base
        self._base = base

    def load_checkpoint(self, folder: Path) -> PreTrainedModel:
        """The model of a checkpoint that was trained whole, as the base is loaded."""
        spec = self._start.base.model_copy(
            update={"model_name_or_path": str(folder.resolve()), "revision": None}
        )
        model = load_model(spec, self._kind, self.device)
        model.config.get_text_config().pad_token_id = self.tokenizer.pad_token_id
        return model

    @property
    def start(self) -> Path | None:
        """Folder of the frozen adapter that every trial starts from, if it does."""
        return self._start.adapter

    def finals_judge(self, base: PreTrainedModel) -> Judge | None:
        """Asks the finals' prompts on draws of their own; None without such prompts."""
        judge, prompts = self._sweep.judge, self._finals_prompts
        if judge is None or not prompts:
            return None
        judge = judge.model_copy(update={"num_prompts": len(prompts)})
        return self._judge_of(judge, prompts, base, seed=(judge.seed, FINALS_DRAWS))

    @cached_property
    def finals_held_out(self) -> Dataset | None:
        """The held-out records of the finals; None where the search's objective needs none."""
        return self._encode_held_out(self._finals_held_out)

    def lend(self, spec: TrialSpec) -> TrialInputs:
        """The inputs of a trial; the base is the trial's until `take_back`.

        Raises DataError where the trial's length limit leaves no record to train on.
        """
        self._tidy()
        train = fit(self._train, spec.algorithm).dataset
        if len(train) == 0:
            limit = length_limit(spec.algorithm)
            field = f"algorithm.{length_field(spec.algorithm)}"
            raise DataError([f"{field}: {limit} tokens leave no record; raise it"])
        trains_all = spec.model.lora_r is None
        assert not (trains_all and any(map(self._is_shared, self._rewards))), spec.params
        base = self._base if self._base is not None else self._new_base()
        self._base = None
        return TrialInputs(
            base=base,
            encoder=self.encoder,
            train=train,
            held_out=self.held_out,
            device=self.device,
            load_reference=self._load,
            fresh_modules=self._fresh_modules,
            # A classifier writes no replies and has no generation settings.
            end_token_ids=(
                tuple(end_token_ids(base, self.tokenizer)) if self._kind == "causal" else ()
            ),
            start=self._start.adapter,
            reward=(
                self._rewards[spec.algorithm.reward]
                if isinstance(spec.algorithm, PPOSpec)
                else None
            ),
        )

    def _tidy(self) -> None:
        """Free what the last trial left; done before a trial, when its frames are gone."""
        gc.collect()
        return_free_memory()
        if self._lent < 2:
            # What is alive now lives as long as the worker (the first trial still imports much):
            # it need not be searched for garbage again, which costs a tenth of a short trial.
            gc.freeze()
        self._lent += 1

    def take_back(self, spec: TrialSpec, inputs: TrialInputs) -> None:
        """Keep the base of a trial that ended well, if training left it as it was."""
        sharded = zero_stage(deepspeed_config(spec.deepspeed)) == 3
        if spec.model.lora_r is not None and not sharded:
            self._base = inputs.base


def _reward_specs(sweep: SweepSpec) -> list[RewardModelRewardSpec]:
    """Every reward that a sweep's trials need: the judge's, and PPO's own."""
    specs = [sweep.judge.reward] if sweep.judge is not None else []
    if isinstance(sweep.algorithm, PPOSpec):
        specs.append(sweep.algorithm.reward)
    return list(dict.fromkeys(specs))
