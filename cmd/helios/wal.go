package main

// walCommand is what has to do with the write-ahead log.
func walCommand() command {
	return command{
		name:    "wal",
		args:    "COMMAND",
		summary: "relay the write-ahead log, and look into it",
		about:   "helios help wal COMMAND says more.",
		parts:   []command{walRelayCommand(), walStatsCommand(), walDumpCommand()},
	}
}
