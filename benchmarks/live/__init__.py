"""The live scoreboard: whole fine-tunes by `tune` and by what a user would do instead, judged on fresh seeds and fresh rows."""
