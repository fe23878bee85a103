package later

// TODO: write this.
func later() {}

// todoList is not a note, nor is SQLSTATE XX000 or mktemp XXXXXX.
var todoList []string
