"""Sample data that ships with the package: see digits/SOURCE.md."""
