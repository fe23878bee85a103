package companions

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// programs are those of PostgreSQL that a companion starts.
var programs = map[string]bool{
	"postgres": true, "initdb": true, "pg_basebackup": true, "pg_rewind": true, "pg_controldata": true,
}

// endPatience bounds how long programs may take to end after SIGKILL.
const endPatience = 5 * time.Second

// endPrograms ends every program of PostgreSQL that works in dir or was told to, and
// every companion that has its state there, and returns when none is left. A companion
// that was killed may have left a child that has not become another program yet.
func endPrograms(dir string) error {
	for deadline := time.Now().Add(endPatience); ; time.Sleep(time.Millisecond) {
		pids, err := programsIn(dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v live %v after SIGKILL", pids, endPatience)
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
}

// programsIn finds them. A process that has ended meanwhile, or is not ours to look
// at, is none.
func programsIn(dir string) ([]int, error) {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, name := range names {
		program, err := os.Readlink(name + "/exe") // a dead one has none
		if err != nil {
			continue
		}
		at, _ := os.Readlink(name + "/cwd")
		told, _ := os.ReadFile(name + "/cmdline")
		switch isOurs := programs[strings.TrimSuffix(filepath.Base(program), " (deleted)")]; {
		case isOurs && (strings.HasPrefix(at, dir+"/") || strings.Contains(string(told), dir+"/")):
		case strings.Contains(string(told), "\x00--state="+dir+"/"):
		default:
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			return nil, err
		}
		found = append(found, pid)
	}
	return found, nil
}
