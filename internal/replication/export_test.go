package replication

// VerifierWithSalt makes a verifier with a salt that somebody else has chosen.
func VerifierWithSalt(password string, salt []byte, iterations int) Verifier {
	v, err := newVerifier(password, salt, iterations)
	if err != nil {
		panic(err)
	}
	return v
}
