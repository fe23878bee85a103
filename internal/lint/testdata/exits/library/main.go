package library

import "os"

func main() {
	os.Exit(1)
}
