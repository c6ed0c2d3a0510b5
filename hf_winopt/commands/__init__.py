"""The subcommands of `hf-winopt`, a module each; see `hf_winopt.cli`."""
