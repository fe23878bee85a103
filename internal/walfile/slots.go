package walfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/heliosdb/helios/wal"
)

// slotsName is the file of SaveSlots.
const slotsName = "slots.json"

// SaveSlots keeps up to where each slot has confirmed WAL, over a crash too. A
// Reset leaves it as it is.
func (s *Spool) SaveSlots(slots map[string]wal.LSN) error {
	text, err := json.MarshalIndent(slots, "", "\t")
	if err != nil {
		return failed(err)
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	return failed(s.disk.replace(slotsName, bytes.NewReader(append(text, '\n'))))
}

// LoadSlots returns what SaveSlots has kept last; an empty map if that is
// nothing.
func (s *Spool) LoadSlots() (map[string]wal.LSN, error) {
	name := s.disk.file(slotsName)
	text, err := os.ReadFile(name)
	slots := map[string]wal.LSN{}
	if errors.Is(err, fs.ErrNotExist) {
		return slots, nil
	}
	if err != nil {
		return nil, failed(err)
	}
	if err := json.Unmarshal(text, &slots); err != nil {
		return nil, fmt.Errorf("walfile: %s: %w", name, err)
	}
	if slots == nil { // the file says null
		slots = map[string]wal.LSN{}
	}
	return slots, nil
}
