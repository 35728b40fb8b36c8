package main

import "testing"

// long skips a test under -short; what says why the test takes long.
func long(t *testing.T, what string) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: " + what)
	}
}

// afterKills skips a test of what a kill leaves behind under -race: it starts the program
// hundreds of times and looks at the disk, where the detector sees nothing. The stage test
// runs it, or the stage crash at every cut.
func afterKills(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("-race: it is about what a kill leaves on the disk")
	}
	long(t, "it kills the program many times")
}
