package beat

import "time"

// Next returns how long it is until the next multiple of every since 1970: more
// than nothing, and every at most. A clock that is set moves it once. every has to be
// positive.
func Next(every time.Duration) time.Duration {
	return every - time.Duration(time.Now().UnixNano()%int64(every))
}
