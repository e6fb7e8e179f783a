"""The command line: one file a subcommand, each thin; heavy imports happen inside `run`."""
