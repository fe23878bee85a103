package worker

import "sync"

func owned(wg *sync.WaitGroup, work func()) {
	wg.Go(work)
}

func lost(work func()) {
	go work()
	func() {
		go func() { work() }()
	}()
}
