"""The body of one trial: its data, its worker's workbench, its checkpoints and how it can fail."""
