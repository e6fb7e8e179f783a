"""EasyDS-Tune: hyperparameter sweeps for LLM post-training on Ray and DeepSpeed."""

__version__ = "0.1.0"
