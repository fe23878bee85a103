package relay

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/heliosdb/helios/internal/replication"
)

func TestWhoMaySubscribe(t *testing.T) {
	users := map[string]replication.Verifier{"known": {}}
	certificates := &tls.Config{ClientCAs: x509.NewCertPool()} //nolint:gosec // nobody speaks it
	const here, there = "127.0.0.1:4711", "10.0.0.7:4711"
	for name, tt := range map[string]struct {
		cfg  Config
		who  replication.Startup
		want replication.Method
	}{
		"nobody is known, from here":             {Config{}, replication.Startup{RemoteAddr: here}, replication.Trust},
		"nobody is known, from elsewhere":        {Config{}, replication.Startup{RemoteAddr: there}, replication.Reject},
		"all are trusted, from elsewhere":        {Config{TrustAll: true}, replication.Startup{RemoteAddr: there}, replication.Trust},
		"all are trusted, but there are users":   {Config{TrustAll: true, Users: users}, replication.Startup{RemoteAddr: there}, replication.Password},
		"all are trusted, but by certificates":   {Config{TrustAll: true, TLS: certificates}, replication.Startup{RemoteAddr: there}, replication.Reject},
		"by certificate":                         {Config{TLS: certificates}, replication.Startup{RemoteAddr: there, TLS: true}, replication.Certificate},
		"in plain text where TLS is insisted on": {Config{TLS: certificates, RequireTLS: true}, replication.Startup{RemoteAddr: here}, replication.Reject},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Relay{cfg: tt.cfg}
			r.users.Store(&tt.cfg.Users)
			if got := r.authenticate(tt.who); got != tt.want {
				t.Errorf("authenticate(%+v) = %v, want %v", tt.who, got, tt.want)
			}
		})
	}
}
