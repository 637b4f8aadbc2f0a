"""A study in the browser while it runs: the report's page, with what is new sent to it. It reads files, and asks a study by files."""
