package pgtest

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
)

// Another process is told by its environment which port to ask for.
const lockedPort = "HELIOS_TEST_LOCKED_PORT"

func TestAPortIsTakenFromOtherProcesses(t *testing.T) {
	if text := os.Getenv(lockedPort); text != "" {
		port, err := strconv.Atoi(text)
		OK(t, err)
		ports.mu.Lock()
		defer ports.mu.Unlock()
		if lockPortLocked(port, syscall.F_WRLCK) {
			t.Errorf("port %d can be taken", port)
		}
		return
	}
	port, err := TakePort(t.Context())
	OK(t, err)
	ask := func() error {
		other := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		other.Env = append(os.Environ(), lockedPort+"="+strconv.Itoa(port))
		return other.Run()
	}
	if err := ask(); err != nil {
		t.Errorf("another process can take port %d: %v", port, err)
	}
	GivePort(port)
	if err := ask(); err == nil {
		t.Errorf("another process cannot take port %d after it was given back", port)
	}
}
