"""Training children: submitted, supervised, restarted, watched. There is one queue for all."""
