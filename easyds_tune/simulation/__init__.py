"""A sweep on learning curves in place of training: the same decisions, in seconds, without Ray."""
