"""Whether a deployment keeps what the guarantee rests on."""
