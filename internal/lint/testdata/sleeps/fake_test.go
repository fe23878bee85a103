package sleeps

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAnHourPasses(t *testing.T) {
	synctest.Test(t, func(*testing.T) { time.Sleep(time.Hour) })
}
