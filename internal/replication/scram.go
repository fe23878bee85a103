package replication

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Verifier is what a server knows of a password: enough to check it by
// SCRAM-SHA-256, and to prove to the client that it does, but not to log in with
// elsewhere. Its text form is that of rolpassword in pg_authid.
type Verifier struct {
	Iterations int
	Salt       []byte
	StoredKey  [sha256.Size]byte
	ServerKey  [sha256.Size]byte
}

const (
	verifierPrefix = "SCRAM-SHA-256$"
	// defaultIterations and saltSize are PostgreSQL's.
	defaultIterations = 4096
	saltSize          = 16
)

// ParseVerifier reads a verifier as PostgreSQL keeps it:
// SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey.
func ParseVerifier(text string) (Verifier, error) {
	malformed := errors.New("replication: not a SCRAM-SHA-256 verifier") // without the text: it is a secret
	rest, ok := strings.CutPrefix(text, verifierPrefix)
	cost, keys, ok2 := strings.Cut(rest, "$")
	iterations, salt, ok3 := strings.Cut(cost, ":")
	stored, server, ok4 := strings.Cut(keys, ":")
	if !ok || !ok2 || !ok3 || !ok4 {
		return Verifier{}, malformed
	}
	v := Verifier{}
	n, err := strconv.ParseUint(iterations, 10, 31)
	if err != nil || n == 0 {
		return Verifier{}, malformed
	}
	v.Iterations = int(n)
	v.Salt, err = base64.StdEncoding.DecodeString(salt)
	if err != nil || len(v.Salt) == 0 || !parseKey(&v.StoredKey, stored) || !parseKey(&v.ServerKey, server) {
		return Verifier{}, malformed
	}
	return v, nil
}

func parseKey(key *[sha256.Size]byte, text string) bool {
	b, err := base64.StdEncoding.DecodeString(text)
	return err == nil && len(b) == copy(key[:], b) && len(b) == sha256.Size
}

// NewVerifier makes a verifier of a password, with a salt of its own.
func NewVerifier(password string) (Verifier, error) {
	if password == "" {
		return Verifier{}, errors.New("replication: an empty password")
	}
	salt := make([]byte, saltSize)
	rand.Read(salt)
	return newVerifier(password, salt, defaultIterations)
}

func newVerifier(password string, salt []byte, iterations int) (Verifier, error) {
	salted, err := pbkdf2.Key(sha256.New, prepared(password), salt, iterations, sha256.Size)
	if err != nil {
		return Verifier{}, fmt.Errorf("replication: %w", err)
	}
	client := mac(salted, []byte("Client Key"))
	return Verifier{
		Iterations: iterations, Salt: salt,
		StoredKey: sha256.Sum256(client[:]), ServerKey: mac(salted, []byte("Server Key")),
	}, nil
}

// String returns the verifier as PostgreSQL keeps it. It is nearly as secret as
// the password.
func (v Verifier) String() string {
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s%d:%s$%s:%s", verifierPrefix, v.Iterations, encode(v.Salt), encode(v.StoredKey[:]), encode(v.ServerKey[:]))
}

func mac(key, message []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	h.Sum(sum[:0])
	return sum
}

// Names of the mechanisms.
const (
	scramPlain = "SCRAM-SHA-256"
	scramPlus  = "SCRAM-SHA-256-PLUS"
	// endPoint is the only channel binding that PostgreSQL knows.
	endPoint = "tls-server-end-point"
)

// A scram is the server's side of one exchange.
type scram struct {
	verifier Verifier
	doomed   bool   // there is no such user, which is not to show before the end
	binding  []byte // hash of our certificate; nil without TLS
	plus     bool   // the client has chosen the mechanism with channel binding

	header      string // the client's, which says what it thinks of channel binding
	clientFirst string // without the header
	serverFirst string
	nonce       string
}

// errMalformed is what a client is told whose message is none of SCRAM.
var errMalformed = &Error{Code: codeProtocol, Message: "malformed SCRAM message"}

// mockVerifier returns what is shown to somebody who claims to be a user that
// does not exist: always the same for one name, so that nobody can tell by
// asking twice.
func mockVerifier(secret []byte, user string) Verifier {
	salt := mac(secret, []byte(user))
	return Verifier{Iterations: defaultIterations, Salt: salt[:saltSize]}
}

// mechanisms returns what the client may choose from.
func (s *scram) mechanisms() []string {
	if s.binding == nil {
		return []string{scramPlain}
	}
	return []string{scramPlus, scramPlain}
}

// first takes the mechanism that the client has chosen, and its first message,
// and returns ours.
func (s *scram) first(mechanism, message string) (string, error) {
	switch {
	case mechanism == scramPlus && s.binding != nil:
		s.plus = true
	case mechanism != scramPlain:
		return "", &Error{Code: codeProtocol, Message: "client selected an invalid SASL authentication mechanism"}
	}
	flag, rest, ok := strings.Cut(message, ",")
	authzid, bare, ok2 := strings.Cut(rest, ",")
	if !ok || !ok2 {
		return "", errMalformed
	}
	if authzid != "" {
		return "", &Error{Code: codeNotSupported, Message: "client uses authorization identity, but it is not supported"}
	}
	if err := s.checkFlag(flag); err != nil {
		return "", err
	}
	s.header, s.clientFirst = message[:len(message)-len(bare)], bare
	theirs, err := clientNonce(bare)
	if err != nil {
		return "", err
	}
	s.nonce = theirs + rand.Text()
	s.serverFirst = fmt.Sprintf("r=%s,s=%s,i=%d", s.nonce, base64.StdEncoding.EncodeToString(s.verifier.Salt), s.verifier.Iterations)
	return s.serverFirst, nil
}

// checkFlag takes what the client says of channel binding. One that could do it
// and thinks that we cannot has been lied to: somebody is in between.
func (s *scram) checkFlag(flag string) error {
	switch {
	case flag == "p="+endPoint && s.plus, flag == "n" && !s.plus, flag == "y" && s.binding == nil:
		return nil
	case flag == "y" && !s.plus:
		return &Error{
			Code: codeNoAuthorization, Message: "SCRAM channel binding negotiation error",
			Detail: "The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.",
		}
	case strings.HasPrefix(flag, "p=") && s.plus:
		return &Error{Code: codeProtocol, Message: "unsupported SCRAM channel-binding type"}
	}
	return errMalformed
}

// clientNonce finds the client's nonce in its first message. The user's name in
// it is not looked at: the one at startup counts.
func clientNonce(bare string) (string, error) {
	name, rest, ok := strings.Cut(bare, ",")
	nonce, _, _ := strings.Cut(rest, ",")
	nonce, ok2 := strings.CutPrefix(nonce, "r=")
	if !ok || !ok2 || !strings.HasPrefix(name, "n=") || nonce == "" || !printable(nonce) {
		return "", errMalformed
	}
	return nonce, nil
}

// printable reports whether text is what a nonce may be made of.
func printable(text string) bool {
	for i := range len(text) {
		if text[i] < 0x21 || text[i] > 0x7E {
			return false
		}
	}
	return true
}

// errWrong says that the password is not the user's.
var errWrong = errors.New("replication: wrong password")

// final takes the client's last message, and returns ours, which proves that we
// know the verifier; errWrong if the client does not know the password.
func (s *scram) final(message string) (string, error) {
	end := strings.LastIndex(message, ",p=")
	if end < 0 {
		return "", errMalformed
	}
	unproved := message[:end]
	proof, err := base64.StdEncoding.DecodeString(message[end+len(",p="):])
	if err != nil || len(proof) != sha256.Size {
		return "", errMalformed
	}
	binding, rest, _ := strings.Cut(unproved, ",")
	nonce, _, _ := strings.Cut(rest, ",")
	if err := s.checkFinal(binding, nonce); err != nil {
		return "", err
	}
	signed := []byte(s.clientFirst + "," + s.serverFirst + "," + unproved)
	signature := mac(s.verifier.StoredKey[:], signed)
	key := make([]byte, sha256.Size)
	for i := range key {
		key[i] = proof[i] ^ signature[i]
	}
	stored := sha256.Sum256(key)
	// The comparison first: it takes as long for a user that does not exist.
	if !hmac.Equal(stored[:], s.verifier.StoredKey[:]) || s.doomed {
		return "", errWrong
	}
	ours := mac(s.verifier.ServerKey[:], signed)
	return "v=" + base64.StdEncoding.EncodeToString(ours[:]), nil
}

// checkFinal checks what the client's last message repeats: the channel, and the
// nonce.
func (s *scram) checkFinal(binding, nonce string) error {
	channel := []byte(s.header)
	if s.plus {
		channel = append(channel, s.binding...)
	}
	if !hmac.Equal([]byte(binding), []byte("c="+base64.StdEncoding.EncodeToString(channel))) {
		return &Error{Code: codeNoAuthorization, Message: "SCRAM channel binding check failed"}
	}
	if !hmac.Equal([]byte(nonce), []byte("r="+s.nonce)) {
		return &Error{Code: codeProtocol, Message: "invalid SCRAM response", Detail: "Nonce does not match."}
	}
	return nil
}
