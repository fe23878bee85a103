package pool

import (
	"encoding/binary"
	"testing"

	"github.com/heliosdb/helios/wal"
)

// A standby shows a commit a moment before it counts it: where there is more to replay,
// the record that comes next may have been seen.
func TestASightReachesAsFarAsAQueryCanHaveSeen(t *testing.T) {
	lsn := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	file := []byte("000000020000000000000001")
	for name, tt := range map[string]struct {
		row  [][]byte
		want Sight
	}{
		"a standby that has replayed all":           {[][]byte{{1}, lsn(0x1000100), lsn(0x1000100), nil}, Sight{At: 0x1000100, Recovering: true}},
		"a standby at work":                         {[][]byte{{1}, lsn(0x1000100), lsn(0x1000200), nil}, Sight{At: 0x1000101, Recovering: true}},
		"a standby that reads an archive":           {[][]byte{{1}, lsn(0x1000100), nil, nil}, Sight{At: 0x1000100, Recovering: true}},
		"a standby that has replayed nothing":       {[][]byte{{1}, nil, lsn(0x1000200), nil}, Sight{Recovering: true}},
		"a primary":                                 {[][]byte{{0}, lsn(0x1000100), nil, file}, Sight{At: 0x1000100, Timeline: 2}},
		"a primary whose next record starts a page": {[][]byte{{0}, lsn(0x1002018), nil, file}, Sight{At: 0x1002000, Timeline: 2}},
	} {
		if got := sight(tt.row, wal.DefaultSegmentSize); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}
