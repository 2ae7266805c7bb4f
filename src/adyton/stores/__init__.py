"""What must last: SQLite, encrypted at rest."""
