"""The search itself: Ray Tune runs trials, Optuna proposes them, the journal records it all."""
