"""Names of TRL and Transformers arguments a spec may pass through, held true by a test.

Written out here because importing TRL takes seconds and a spec must load without it.
"""

from __future__ import annotations

# fmt: off
COMMON = frozenset({
    "activation_checkpointing", "activation_checkpointing_kwargs", "activation_offloading",
    "adam_epsilon", "average_tokens_across_devices", "dataloader_drop_last",
    "dataloader_in_order", "dataloader_multiprocessing_context", "dataloader_num_workers",
    "dataloader_persistent_workers", "dataloader_prefetch_factor",
    "full_determinism", "gradient_checkpointing_kwargs", "include_num_input_tokens_seen",
    "label_smoothing_factor", "liger_kernel_config", "lr_scheduler_kwargs",
    "neftune_noise_alpha", "optim", "optim_args", "optim_target_modules", "pad_to_multiple_of",
    "per_device_eval_batch_size", "tf32", "torch_compile", "torch_compile_backend",
    "torch_compile_mode", "torch_empty_cache_steps", "train_sampling_strategy", "use_cache",
    "use_liger_kernel",
})

EXTRA = {
    "sft": frozenset({
        "router_aux_loss_coef",
    }),
    "rm": frozenset(),
    "dpo": frozenset({
        "discopop_tau", "f_alpha_divergence_coef", "f_divergence_type", "loss_weights",
        "router_aux_loss_coef",
    }),
}
# fmt: on

OWN_PPO = frozenset({"adam_epsilon", "gradient_checkpointing_kwargs", "lr_scheduler_kwargs"})
"""What our own PPO takes; it is built on none of TRL's config classes."""


def passed_on(kind: str) -> frozenset[str]:
    """The arguments that `training.training_arguments` may hold for an algorithm."""
    return OWN_PPO if kind == "ppo" else COMMON | EXTRA[kind]


_WHY = {
    "the sweep keeps checkpoints and folders itself": (
        "output_dir",
        "save_strategy",
        "save_steps",
        "save_total_limit",
        "save_only_model",
        "save_on_each_node",
        "load_best_model_at_end",
        "metric_for_best_model",
        "greater_is_better",
        "resume_from_checkpoint",
        "restore_callback_states_from_checkpoint",
        "enable_jit_checkpoint",
        "ignore_data_skip",
    ),
    "the judge evaluates; set training.eval_steps": (
        "eval_strategy",
        "eval_delay",
        "eval_on_start",
        "do_train",
        "do_eval",
        "do_predict",
        "batch_eval_metrics",
        "include_for_metrics",
        "eval_accumulation_steps",
        "eval_do_concat_batches",
        "eval_use_gather_object",
        "prediction_loss_only",
        "label_names",
        "eval_packing",
    ),
    "the sweep logs to its journal and TensorBoard": (
        "report_to",
        "run_name",
        "project",
        "logging_strategy",
        "logging_steps",
        "logging_first_step",
        "logging_nan_inf_filter",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "disable_tqdm",
        "debug",
        "trackio_space_id",
        "trackio_bucket_id",
        "trackio_static_space_id",
        "skip_memory_metrics",
        "length_column_name",
    ),
    "nothing is pushed to a hub; use easyds-tune export": (
        "push_to_hub",
        "hub_model_id",
        "hub_strategy",
        "hub_token",
        "hub_private_repo",
        "hub_always_push",
        "hub_revision",
    ),
    "write it as the field of its own in the spec": (
        "deepspeed",
        "seed",
        "data_seed",
        "trust_remote_code",
        "model_init_kwargs",
        "use_cpu",
        "chat_template_path",
        "eos_token",
        "pad_token",
    ),
    "set model.dtype: bfloat16 or float16": ("bf16", "fp16", "bf16_full_eval", "fp16_full_eval"),
    "write algorithm.truncation in the spec": ("truncation_mode",),
    "data is tokenised by easyds_tune.data": (
        "dataset_num_proc",
        "dataset_text_field",
        "dataset_kwargs",
        "remove_unused_columns",
        "packing",
        "packing_strategy",
        "padding_free",
        "assistant_only_loss",
        "completion_only_loss",
        "shuffle_dataset",
    ),
    "ranks are started by the sweep": (
        "local_rank",
        "ddp_backend",
        "ddp_timeout",
        "ddp_broadcast_buffers",
        "ddp_bucket_cap_mb",
        "ddp_find_unused_parameters",
        "ddp_static_graph",
        "fsdp",
        "fsdp_config",
        "parallelism_config",
        "accelerator_config",
    ),
    "the reference is the model the trial started from": (
        "sync_ref_model",
        "ref_model_mixup_alpha",
        "ref_model_sync_steps",
        "precompute_ref_log_probs",
        "precompute_ref_batch_size",
    ),
    "it follows the device": ("dataloader_pin_memory",),
    "preference losses train without the base's dropout; set model.lora_dropout": (
        "disable_dropout",
    ),
    "the batch is the spec's; out of memory is handled by the sweep": ("auto_find_batch_size",),
}

RESERVED = {
    name: f"cannot be passed through: {why}" for why, names in _WHY.items() for name in names
}
