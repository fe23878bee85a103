package relay

import (
	"testing"

	"github.com/heliosdb/helios/wal"
)

func TestChunksThatCameBackAreUsedBeforeNewMemory(t *testing.T) {
	p := &chunkPool{}
	defer p.drain()
	const all = arenaSize / chunkSize
	for range 3 {
		var lent []*chunk
		for i := range all {
			c, err := p.get(wal.LSN(i) * chunkSize)
			if err != nil {
				t.Fatal(err)
			}
			c.data[0], c.data[chunkSize-1] = byte(i), byte(i)
			lent = append(lent, c)
		}
		for i, c := range lent {
			if c.data[0] != byte(i) || c.data[chunkSize-1] != byte(i) {
				t.Errorf("chunk %d shares memory with another", i)
			}
			c.release()
		}
	}
	if n := len(p.arenas); n != 1 || p.used.Load() != 0 {
		t.Errorf("%d arenas and %d bytes lent, want one that holds %d chunks, and none", n, p.used.Load(), all)
	}
}

func TestMemoryGoesBackWithTheLastChunkThatIsReadFrom(t *testing.T) {
	p := &chunkPool{}
	c, err := p.get(0)
	if err != nil {
		t.Fatal(err)
	}
	c.data[7] = 7
	p.drain()
	if len(p.arenas) != 1 || c.data[7] != 7 {
		t.Errorf("%d arenas while a chunk is read from, want its one", len(p.arenas))
	}
	c.release()
	if len(p.arenas) != 0 {
		t.Errorf("%d arenas at the end, want none", len(p.arenas))
	}
}
