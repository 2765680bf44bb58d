"""The subcommands, one file each. They import what they need when they run, so that `lexora --help` is quick."""
