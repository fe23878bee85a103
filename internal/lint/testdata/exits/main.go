package main

import (
	"log"
	"os"
)

func main() {
	defer func() { os.Exit(1) }()
	os.Exit(run())
}

func run() int {
	if len(os.Args) > 1 {
		log.Fatal("too many arguments")
	}
	os.Exit(2)
	return 0
}
