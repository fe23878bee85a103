package walbench

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if code, is := Child(); is {
		os.Exit(code)
	}
	os.Exit(m.Run())
}
