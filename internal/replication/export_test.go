package replication

import (
	"bufio"
	"net"
)

// VerifierWithSalt makes a verifier with a salt that somebody else has chosen.
func VerifierWithSalt(password string, salt []byte, iterations int) Verifier {
	v, err := newVerifier(password, salt, iterations)
	if err != nil {
		panic(err)
	}
	return v
}

// ClientOn returns a client on a connection that is past its login.
func ClientOn(conn net.Conn) *Client {
	return &Client{conn: conn, reader: bufio.NewReaderSize(conn, readBuffer), parameters: map[string]string{}, copyDone: true}
}

// SessionOn returns a session on a connection that is past its login.
func SessionOn(conn net.Conn) *Session {
	return &Session{conn: conn, reader: bufio.NewReaderSize(conn, readBuffer)}
}
