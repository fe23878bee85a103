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

// programsIn finds them. A process that is not ours to look at is none.
func programsIn(dir string) ([]int, error) {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, name := range names {
		if !isProgramIn(name, dir) {
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

// isProgramIn reports whether the process of that directory of /proc is one of them.
func isProgramIn(process, dir string) bool {
	at, _ := os.Readlink(process + "/cwd") // a dead one has none
	program, told, err := whatIs(process)
	isInside := strings.HasPrefix(at, dir+"/")
	switch {
	case err != nil: // it is about to be dead
		return isInside
	case strings.Contains(told, "\x00--state="+dir+"/"): // a companion, or a child of one
		return true
	case programs[strings.TrimSuffix(filepath.Base(program), " (deleted)")]:
		return isInside || strings.Contains(told, dir+"/") || hasData(process, dir)
	default: // a shell that has not become the server yet
		return strings.HasPrefix(told, "sh\x00-c\x00") && hasData(process, dir)
	}
}

// hasData reports whether a process was told by its environment that the data is in dir, as
// initdb does with the servers that it starts, and the shells that start them.
func hasData(process, dir string) bool {
	env, _ := os.ReadFile(process + "/environ")
	return strings.Contains("\x00"+string(env), "\x00PGDATA="+dir+"/")
}

// whatIs returns the program of a process, and the command line of that program and
// not of one that the process was before.
func whatIs(process string) (program, told string, err error) {
	for range 100 { // it is one or the other soon; a few have no command line at all
		before, err := os.Readlink(process + "/exe")
		if err != nil {
			return "", "", err
		}
		line, _ := os.ReadFile(process + "/cmdline")
		if program, err = os.Readlink(process + "/exe"); err != nil {
			return "", "", err
		}
		if told = string(line); told != "" && program == before {
			break
		}
		time.Sleep(10 * time.Microsecond)
	}
	return program, told, nil
}
