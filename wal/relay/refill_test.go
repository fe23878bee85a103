package relay

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
)

func TestRemovedWALIsToldFromOtherRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want bool
		code string // that a subscriber is told
	}{
		"the file is not there": {
			&pgconn.PgError{Code: "58P01", Routine: "WalSndSegmentOpen", Message: "requested WAL segment 000000010000000000000003 has already been removed"}, true, "58P01",
		},
		"in another language": {
			&pgconn.PgError{Code: "58P01", Routine: "WalSndSegmentOpen", Message: "das angeforderte WAL-Segment 000000010000000000000003 wurde schon entfernt"}, true, "58P01",
		},
		"removed while it was read": {
			&pgconn.PgError{Code: "XX000", Routine: "CheckXLogRemoved", Message: "requested WAL segment 000000010000000000000003 has already been removed"}, true, "58P01",
		},
		"a relay says so": {
			&pgconn.PgError{Code: "58P01", Message: "requested WAL segment 000000010000000000000003 has already been removed"}, true, "58P01",
		},
		"wrapped": {
			fmt.Errorf("replication: %w", &pgconn.PgError{Code: "58P01"}), true, "58P01",
		},
		"another history": {
			&pgconn.PgError{Code: "XX000", Routine: "StartReplication", Message: "requested starting point 0/5000000 on timeline 1 is not in this server's history"}, false, "XX000",
		},
		"ahead of the server": {
			&pgconn.PgError{Code: "XX000", Routine: "StartReplication", Message: "requested starting point 0/5000000 is ahead of the WAL flush position of this server 0/4000000"}, false, "XX000",
		},
		"a file that cannot be read": {
			&pgconn.PgError{Code: "58030", Routine: "WALReadRaiseError", Message: "could not read from log segment"}, false, "58030",
		},
		"the connection broke": {io.ErrUnexpectedEOF, false, "57P03"},
	} {
		t.Run(name, func(t *testing.T) {
			got := gone(tt.err)
			if is := errors.Is(got, errGone); is != tt.want || !errors.Is(got, tt.err) {
				t.Errorf("%v was made of %v: removed is %v, want %v", got, tt.err, is, tt.want)
			}
			f := &backfill{st: &stream{r: &Relay{log: slog.New(slog.DiscardHandler)}, s: &session{sub: &Subscriber{}}}}
			told, ok := errors.AsType[*replication.Error](f.refused(tt.err))
			if !ok || told.Code != tt.code {
				t.Errorf("a subscriber is told %v of %v, want the code %s", told, tt.err, tt.code)
			}
		})
	}
	if err := gone(nil); err != nil {
		t.Errorf("no error became %v", err)
	}
}
