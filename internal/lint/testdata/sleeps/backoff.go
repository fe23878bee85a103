package sleeps

import "time"

func backOff() {
	time.Sleep(time.Millisecond)
}
