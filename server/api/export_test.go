package api

import "time"

// For the tests, which are outside so that they can use internal/apifake.

// Routes returns "GET /path" of every route.
func Routes() []string {
	var all []string
	for _, r := range routes() {
		all = append(all, r.method+" "+r.path)
		if r.probe {
			all = append(all, "OPTIONS "+r.path)
		}
	}
	return all
}

// Codes returns every code that has a status of its own.
func Codes() []Code {
	codes := []Code{CodeRefused}
	for code := range statuses {
		codes = append(codes, code)
	}
	return codes
}

// Encoder encodes bulletins for listeners.
type Encoder = encoder

// Encode returns the text of a line.
var Encode = (*encoder).encode

// Listeners returns how many listen.
func (h *Handler) Listeners() int64 { return h.listeners.now.Load() }

// BulletinTrust is how long a bulletin says something about lag.
const BulletinTrust time.Duration = bulletinTrust
