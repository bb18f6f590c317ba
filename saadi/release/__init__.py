"""What an export reveals about patients, and who lets it go."""
