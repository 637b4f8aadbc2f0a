"""Does `tune` find a better recipe than what a user would do instead, at the same cost? Judged on measured fine-tuning surfaces."""
