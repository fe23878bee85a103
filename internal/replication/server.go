package replication

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A Server turns connections that somebody else accepts into sessions. Its fields
// do not change once it is in use; then it is safe for concurrent use.
type Server struct {
	// TLS is how connections are encrypted whose clients want that; nil if none
	// can be. Client certificates are verified as it says.
	TLS *tls.Config
	// Authenticate says how a client has to prove who it is. Without it nobody is
	// let in.
	Authenticate func(Startup) Method
	// Verifier finds what is known of a user's password.
	Verifier func(user string) (Verifier, bool)
	// Admit, if set, may turn a client away that has proved who it is. The error
	// is told if it is an [Error]. Libpq goes to the next of its hosts then, and
	// after the session has begun it does not.
	Admit func(context.Context, Startup) error
	// Parameters are what a new session is told of the server. Clients need
	// server_version and integer_datetimes.
	Parameters func() map[string]string

	sessions atomic.Uint32
	secret   struct { // for the salts of users that do not exist
		once  sync.Once
		value [32]byte
	}
}

// Method is how a client proves who it is.
type Method uint8

const (
	// Reject does not let the client in.
	Reject Method = iota
	// Trust takes its word.
	Trust
	// Password asks for one, by SCRAM-SHA-256.
	Password
	// Certificate is satisfied with a verified certificate for the user's name.
	Certificate
)

// A Startup is what a client says of itself before anything is proved.
type Startup struct {
	User              string
	ApplicationName   string
	RemoteAddr        string            // host:port
	TLS               bool              // the connection is encrypted
	Certificate       string            // common name in its certificate, which was verified; "" for none
	StartupParameters map[string]string // all of them, those above as well
}

// loginTime is how long a client may take to become a session.
const loginTime = 10 * time.Second

// ErrCancel is what a connection is ended with that was only to cancel what
// another one does. Sessions do nothing that would have to be cancelled.
var ErrCancel = errors.New("replication: a request to cancel")

// Accept does all that comes before the first command: encryption, the startup
// message, authentication. If it fails the client has been told and conn is
// closed.
func (s *Server) Accept(ctx context.Context, conn net.Conn) (*Session, error) {
	session, err := s.accept(ctx, conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return session, nil
}

func (s *Server) accept(ctx context.Context, conn net.Conn) (*Session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, loginTime, fmt.Errorf("replication: no session within %v", loginTime))
	defer cancel()
	unwatch := watch(ctx, conn)
	login := &login{server: s, conn: conn}
	session, err := login.run(ctx)
	if complaint, ok := errors.AsType[*Error](err); ok {
		_, _ = login.conn.Write(encodeError("FATAL", complaint)) // the client may be gone
	}
	return session, unwatch(err)
}

// mockSecret returns what the salts of unknown users are made of.
func (s *Server) mockSecret() []byte {
	s.secret.once.Do(func() { rand.Read(s.secret.value[:]) })
	return s.secret.value[:]
}

// A login is a connection that is not a session yet.
type login struct {
	server  *Server
	conn    net.Conn
	state   *tls.ConnectionState // nil without TLS
	binding []byte               // hash of our certificate, nil if there is none
	version uint32
	startup Startup
	session *Session
}

func (l *login) run(ctx context.Context) (*Session, error) {
	body, err := l.negotiate()
	if err != nil {
		return nil, err
	}
	if err := l.readStartup(body); err != nil {
		return nil, err
	}
	l.session = &Session{
		Startup: l.startup,
		PID:     l.server.sessions.Add(1) & (1<<31 - 1), // clients take it for a signed number
		conn:    l.conn,
		reader:  bufio.NewReaderSize(l.conn, readBuffer),
	}
	if err := l.authenticate(); err != nil {
		return nil, err
	}
	if l.server.Admit != nil {
		if err := l.server.Admit(ctx, l.startup); err != nil {
			return nil, err
		}
	}
	return l.session, l.greet()
}

// greet tells the client that it is in, and what it has come to.
func (l *login) greet() error {
	var parameters map[string]string
	if l.server.Parameters != nil {
		parameters = l.server.Parameters()
	}
	messages := []pgproto3.BackendMessage{&pgproto3.AuthenticationOk{}}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		messages = append(messages, &pgproto3.ParameterStatus{Name: name, Value: parameters[name]})
	}
	key := make([]byte, 4)
	if l.version > pgproto3.ProtocolVersion30 {
		key = make([]byte, 32)
	}
	rand.Read(key)
	messages = append(messages, &pgproto3.BackendKeyData{ProcessID: l.session.PID, SecretKey: key}, ready())
	return l.session.say(messages...)
}

// authenticate has the client prove who it is.
func (l *login) authenticate() error {
	method := Reject
	if l.server.Authenticate != nil {
		method = l.server.Authenticate(l.startup)
	}
	switch method {
	case Trust:
		return nil
	case Password:
		return l.checkPassword()
	case Certificate:
		return l.checkCertificate()
	case Reject:
	}
	return l.noEntry()
}

// noEntry says that nobody like this client is let in.
func (l *login) noEntry() *Error {
	host, _, err := net.SplitHostPort(l.startup.RemoteAddr)
	if err != nil {
		host = l.startup.RemoteAddr
	}
	encryption := "no encryption"
	if l.state != nil {
		encryption = "SSL encryption"
	}
	return &Error{
		Code:    codeNoAuthorization,
		Message: fmt.Sprintf("no entry for replication connection from host %q, user %q, %s", host, l.startup.User, encryption),
	}
}

func (l *login) checkCertificate() error {
	if l.startup.Certificate == l.startup.User {
		return nil
	}
	return &Error{Code: codeNoAuthorization, Message: fmt.Sprintf("certificate authentication failed for user %q", l.startup.User)}
}

// checkPassword has the client prove by SCRAM that it knows the password. Who
// there is does not show: an exchange with an unknown user fails at its end.
func (l *login) checkPassword() error {
	s := scram{binding: l.binding, doomed: true, verifier: mockVerifier(l.server.mockSecret(), l.startup.User)}
	if l.server.Verifier != nil {
		if v, ok := l.server.Verifier(l.startup.User); ok {
			s.verifier, s.doomed = v, false
		}
	}
	err := l.exchange(&s)
	if errors.Is(err, errWrong) {
		return &Error{Code: codeWrongPassword, Message: fmt.Sprintf("password authentication failed for user %q", l.startup.User)}
	}
	return err
}

func (l *login) exchange(s *scram) error {
	if err := l.session.say(&pgproto3.AuthenticationSASL{AuthMechanisms: s.mechanisms()}); err != nil {
		return err
	}
	body, err := l.response()
	if err != nil {
		return err
	}
	var initial pgproto3.SASLInitialResponse
	if err := initial.Decode(body); err != nil {
		return errMalformed
	}
	challenge, err := s.first(initial.AuthMechanism, string(initial.Data))
	if err != nil {
		return err
	}
	if err := l.session.say(&pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)}); err != nil {
		return err
	}
	if body, err = l.response(); err != nil {
		return err
	}
	proof, err := s.final(string(body))
	if err != nil {
		return err
	}
	return l.session.say(&pgproto3.AuthenticationSASLFinal{Data: []byte(proof)})
}

// response reads what a client answers while it logs in.
func (l *login) response() ([]byte, error) {
	kind, body, err := l.session.next(readBuffer)
	if err == nil && kind != 'p' {
		err = &Error{Code: codeProtocol, Message: fmt.Sprintf("expected SASL response, got message type %d", kind)}
	}
	return body, err
}

// protocolError says that the client does not speak the protocol.
func protocolError(format string, args ...any) *Error {
	return &Error{Code: codeProtocol, Message: fmt.Sprintf(format, args...)}
}
