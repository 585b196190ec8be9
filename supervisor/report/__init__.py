"""What the operator sees: shapes of the record and of live snapshots. Nothing here prints."""
