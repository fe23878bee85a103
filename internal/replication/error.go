package replication

// An Error is what a session answers a command or a login with, in the words of
// PostgreSQL.
type Error struct {
	Code    string // SQLSTATE
	Message string
	Detail  string // "" for none
	Hint    string // "" for none
}

// Error implements error.
func (e *Error) Error() string { return e.Message + " (SQLSTATE " + e.Code + ")" }

// SQLSTATEs of what this package itself complains of.
const (
	codeSyntax          = "42601"
	codeProtocol        = "08P01"
	codeNotSupported    = "0A000"
	codeNoAuthorization = "28000"
	codeWrongPassword   = "28P01"
)
