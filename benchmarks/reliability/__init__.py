"""Gates that break a study on purpose, from outside: kills, signals, a full disk. See `docs/reliability.md`."""
