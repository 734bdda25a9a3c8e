"""How many workers and cores a load takes, by a simulation that replays measured service times."""
