"""The ``postseal`` command: one module per group of subcommands."""
