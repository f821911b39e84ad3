"""The other parties of a local network: creator, validator, competitors; child processes.

They are written from the network's rules alone and share no code with the training core, so
that what they say about its work is a second opinion.
"""
