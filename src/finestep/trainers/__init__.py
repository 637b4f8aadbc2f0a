"""Other people's trainers: where each reads its settings, how it is started, what it logs; nothing here starts a process."""
