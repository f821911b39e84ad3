"""What `doctor` looks at: each check finds out one thing and says what to do about it."""
