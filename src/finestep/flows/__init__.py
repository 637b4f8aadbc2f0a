"""The walks through the rooms: tune, train, data; they compose and never print."""
