"""Where the simulator's text comes from: vocabulary, language, chat template, JSON instances."""
