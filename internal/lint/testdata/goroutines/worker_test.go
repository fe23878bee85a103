package worker

func startInTest(work func()) {
	go work()
}
