package main

// walCommand is what has to do with the write-ahead log.
func walCommand() command {
	return command{
		name:    "wal",
		args:    "COMMAND",
		summary: "look into the write-ahead log",
		about:   "helios help wal COMMAND says more.",
		parts:   []command{walDumpCommand()},
	}
}
