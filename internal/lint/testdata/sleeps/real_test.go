package sleeps

import "time"

func wait() {
	time.Sleep(time.Second)
}
